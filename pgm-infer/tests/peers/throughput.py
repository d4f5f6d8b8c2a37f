"""The throughput of the server against the command `generate`: the same samples with the same batch.

python throughput.py PGM_INFER MODEL [N] [BATCH] [STEPS] [ROUNDS] [EACH]: N samples, EACH a request, all requests at once.

Prints the tokens/s of both in turn, the share of CPU time that this client took, and the median ratio. It fails if the text of a
sample differs. Loading is not counted: for the command, a short run is subtracted from a long one.
"""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time

import aiohttp

from serving import ready

BINARY, MODEL = sys.argv[1:3]
N, BATCH, STEPS, ROUNDS, EACH = (
    int(argument) for argument in sys.argv[3:] + ["128", "16", "64", "15", "64"][len(sys.argv) - 3:])
URL = "http://127.0.0.1:8137"
with open(f"{MODEL}/config.json", encoding="utf-8") as config:
    LENGTH = json.load(config)["backbone"]["length"]


def command(n):
    template = f"{{{LENGTH - 2}}}."
    arguments = ["generate", "--model", MODEL, "--template", template, "-n", n, "--batch", BATCH]
    arguments += ["--steps", STEPS, "--seed", 0, "--json"]
    began = time.monotonic()
    out = subprocess.run([BINARY, *map(str, arguments)], check=True, capture_output=True, text=True).stdout
    return time.monotonic() - began, [json.loads(line) for line in out.splitlines()]


async def server(client, n):
    async def some(seed):
        body = {"prompt": "", "suffix": ".", "max_tokens": LENGTH - 2, "steps": STEPS, "seed": seed, "n": min(EACH, n - seed)}
        async with client.post("/v1/completions", json=body) as response:
            response.raise_for_status()
            return [choice["text"] + "." for choice in (await response.json())["choices"]]

    began, own = time.monotonic(), time.process_time()
    answers = await asyncio.gather(*map(some, range(0, n, EACH)))
    taken = time.monotonic() - began
    return taken, (time.process_time() - own) / taken / os.cpu_count(), sum(answers, [])


async def main():
    options = ["--host", "127.0.0.1", "--port", "8137", "--max-batch", str(BATCH), "--queue", str(N)]
    serving = subprocess.Popen([BINARY, "serve", "--model", MODEL, *options], stderr=subprocess.DEVNULL)
    try:
        connector, timeout = aiohttp.TCPConnector(limit=N + 8), aiohttp.ClientTimeout(total=600)
        async with aiohttp.ClientSession(URL, connector=connector, timeout=timeout) as client:
            await ready(client)
            await server(client, BATCH)
            ratios, n_tokens = [], N * (LENGTH - 2)
            for _ in range(ROUNDS):
                short, _ = command(BATCH)
                long, samples = command(N + BATCH)
                taken, own, answers = await server(client, N)
                for sample, answer in zip(samples, answers):
                    assert sample["text"] == answer, (sample, answer)
                ours, theirs = n_tokens / taken, n_tokens / (long - short)
                ratios.append(ours / theirs)
                print(f"server {ours:.0f}, command {theirs:.0f} tokens/s, ratio {ratios[-1]:.3f}, client {own:.1%}", flush=True)
            print(f"median ratio {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")
    finally:
        serving.terminate()
        serving.wait()


asyncio.run(main())
