"""The throughput of a server with two copies of its model (`--device flex,flex`) against one, for the same requests.

python replicas.py PGM_INFER MODEL [REQUESTS] [CLIENTS] [ROUNDS] [SAMPLES]

Both servers take turns. Prints the tokens/s of each and the median ratio; fails if an answer differs.
"""

import asyncio
import statistics
import subprocess
import sys
import time

import aiohttp

from serving import ready

BINARY, MODEL = sys.argv[1:3]
REQUESTS, CLIENTS, ROUNDS, SAMPLES = (
    int(argument) for argument in sys.argv[3:] + ["64", "8", "3", "1"][len(sys.argv) - 3:])
DEVICES = {"flex": "http://127.0.0.1:8139", "flex,flex": "http://127.0.0.1:8140"}
TOKENS = 100


async def answers(client):
    found, todo = {}, list(range(REQUESTS))

    async def one():
        while todo:
            seed = 100 * todo.pop()
            body = {"prompt": "", "max_tokens": TOKENS, "steps": 50, "seed": seed, "n": SAMPLES}
            async with client.post("/v1/completions", json=body) as response:
                response.raise_for_status()
                found[seed] = [choice["text"] for choice in (await response.json())["choices"]]

    began = time.monotonic()
    await asyncio.gather(*(one() for _ in range(CLIENTS)))
    return REQUESTS * SAMPLES * TOKENS / (time.monotonic() - began), found


async def main():
    rates = {devices: [] for devices in DEVICES}
    for _ in range(ROUNDS):
        all_found = []
        for devices, url in DEVICES.items():
            # One server at a time: each has all cores.
            options = ["--port", url.rsplit(":", 1)[1], "--device", devices, "--queue", "256", "--log-level", "off"]
            serving = subprocess.Popen([BINARY, "serve", "--model", MODEL, *options], stderr=subprocess.DEVNULL)
            try:
                async with aiohttp.ClientSession(url, timeout=aiohttp.ClientTimeout(total=600)) as client:
                    await ready(client)
                    async with client.post("/v1/completions", json={"prompt": "", "max_tokens": 20}) as response:
                        response.raise_for_status()
                    rate, found = await answers(client)
            finally:
                serving.terminate()
                serving.wait()
            rates[devices].append(rate)
            all_found.append(found)
            print(f"{devices}: {rate:.0f} tokens/s", flush=True)
        assert all_found[0] == all_found[1], "the answers differ"
    ratios = [two / one for one, two in zip(*rates.values())]
    print(f"median ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}); all answers the same")


asyncio.run(main())
