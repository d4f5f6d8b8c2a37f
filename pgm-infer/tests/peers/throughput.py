"""The server beside the command, the same samples at the same batch: python throughput.py PGM_INFER MODEL [N] [BATCH] [STEPS] [ROUNDS].

Prints tokens/s of both in alternation and the median ratio. It fails if a sample's tokens differ. Loading is left out: of
the command by the difference of a long and a short run.
"""

import asyncio
import json
import statistics
import subprocess
import sys
import time

import httpx

BINARY, MODEL = sys.argv[1:3]
N, BATCH, STEPS, ROUNDS = (int(argument) for argument in sys.argv[3:] + ["256", "16", "64", "5"][len(sys.argv) - 3:])
URL = "http://127.0.0.1:8137"
with open(f"{MODEL}/config.json", encoding="utf-8") as config:
    LENGTH = json.load(config)["backbone"]["length"]


def command(n):
    arguments = ["generate", "--model", MODEL, "-n", n, "--batch", BATCH, "--steps", STEPS, "--seed", 0, "--json"]
    began = time.monotonic()
    out = subprocess.run([BINARY, *map(str, arguments)], check=True, capture_output=True, text=True).stdout
    return time.monotonic() - began, [json.loads(line) for line in out.splitlines()]


async def server(client, n):
    async def one(seed):
        body = {"template": f"{{{LENGTH - 1}}}", "steps": STEPS, "seed": seed}
        response = await client.post("/infill", json=body)
        response.raise_for_status()
        return response.json()

    began = time.monotonic()
    answers = await asyncio.gather(*map(one, range(n)))
    return time.monotonic() - began, answers


async def main():
    options = ["--host", "127.0.0.1", "--port", "8137", "--max-batch", str(BATCH), "--queue", str(N)]
    serving = subprocess.Popen([BINARY, "serve", "--model", MODEL, *options], stderr=subprocess.DEVNULL)
    try:
        limits = httpx.Limits(max_connections=N + 8)
        async with httpx.AsyncClient(base_url=URL, limits=limits, timeout=600) as client:
            for _ in range(600):
                try:
                    if (await client.get("/health")).status_code == 200:
                        break
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.1)
            await server(client, BATCH)
            ratios, n_tokens = [], N * (LENGTH - 1)
            for _ in range(ROUNDS):
                short, _ = command(BATCH)
                long, samples = command(N + BATCH)
                taken, answers = await server(client, N)
                for sample, answer in zip(samples, answers):
                    assert sample["tokens"] == answer["tokens"], (sample, answer)
                ours, theirs = n_tokens / taken, n_tokens / (long - short)
                ratios.append(ours / theirs)
                print(f"server {ours:.0f}, command {theirs:.0f} tokens/s, ratio {ratios[-1]:.3f}", flush=True)
            print(f"median ratio {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")
    finally:
        serving.terminate()
        serving.wait()


asyncio.run(main())
