"""The throughput of a server whose requests keep encodings (`refresh`), under a mixed load.

python kept.py PGM_INFER MODEL [CLIENTS] [SECONDS] [ROUNDS]

Clients send requests of mixed lengths, steps and seeds, the next one as soon as the last is answered. Each round has a part where
all encode anew (refresh 1), parts with 8 and inf, and one where each request draws one of the three. Prints generated tokens/s, the
95 % latency and the most memory of kept encodings, and the ratios to refresh 1.
"""

import asyncio
import json
import random
import statistics
import subprocess
import sys
import time

import aiohttp

from serving import ready

BINARY, MODEL = sys.argv[1:3]
CLIENTS, SECONDS, ROUNDS = (int(argument) for argument in sys.argv[3:] + ["8", "20", "3"][len(sys.argv) - 3:])
URL = "http://127.0.0.1:8138"
PARTS = {"1": ["1"], "8": ["8"], "inf": ["inf"], "mixed": ["1", "8", "inf"]}
with open(f"{MODEL}/config.json", encoding="utf-8") as config:
    LENGTH = json.load(config)["backbone"]["length"]


async def part(client, refreshes, seed):
    draw, began, latencies, tokens, kept = random.Random(seed), time.monotonic(), [], 0, 0

    async def one():
        nonlocal tokens
        while time.monotonic() - began < SECONDS:
            count = draw.randrange(LENGTH // 4, LENGTH - 8)
            refresh = draw.choice(refreshes)
            body = {
                "prompt": draw.choice(["", "the ", "In the beginning "]), "max_tokens": count, "seed": draw.randrange(1000),
                "steps": draw.choice([16, 32, 64, 128]), "refresh": refresh if refresh == "inf" else int(refresh),
            }
            asked = time.monotonic()
            async with client.post("/v1/completions", json=body) as response:
                response.raise_for_status()
                await response.json()
            latencies.append(time.monotonic() - asked)
            tokens += count

    async def watch():
        nonlocal kept
        while True:
            async with client.get("/metrics") as response:
                lines = (await response.text()).splitlines()
            kept = max([kept] + [int(float(line.split()[-1])) for line in lines if line.startswith("pgm_cache_bytes")])
            await asyncio.sleep(0.2)

    watching = asyncio.create_task(watch())
    await asyncio.gather(*(one() for _ in range(CLIENTS)))
    watching.cancel()
    latencies.sort()
    return tokens / (time.monotonic() - began), latencies[int(0.95 * (len(latencies) - 1))], kept


async def main():
    options = ["--host", "127.0.0.1", "--port", "8138", "--queue", str(2 * CLIENTS)]
    serving = subprocess.Popen([BINARY, "serve", "--model", MODEL, *options], stderr=subprocess.DEVNULL)
    try:
        async with aiohttp.ClientSession(URL, timeout=aiohttp.ClientTimeout(total=600)) as client:
            await ready(client)
            found = {name: [] for name in PARTS}
            for round_ in range(ROUNDS):
                for name, refreshes in PARTS.items():
                    found[name].append(await part(client, refreshes, round_))
                    rate, latency, kept = found[name][-1]
                    print(f"refresh {name}: {rate:.0f} tokens/s, 95 % within {latency:.2f} s, {kept / 1e6:.1f} MB kept", flush=True)
            for name, rows in found.items():
                ratios = [row[0] / base[0] for row, base in zip(rows, found["1"])]
                rate, latency, kept = (statistics.median(column) for column in zip(*rows))
                print(f"median, refresh {name}: {rate:.0f} tokens/s, ratio {statistics.median(ratios):.2f} "
                      f"({min(ratios):.2f} to {max(ratios):.2f}), 95 % within {latency:.2f} s, {kept / 1e6:.1f} MB kept")
    finally:
        serving.terminate()
        serving.wait()


asyncio.run(main())
