"""Many clients against a running server: python load.py URL PID [CLIENTS] [SECONDS].

Each client repeats requests from a small set with known answers. Some leave before the answer, some send malformed bodies. The
script fails if a response is neither the known text nor an error with a code.
"""

import asyncio
import random
import sys
import time

import httpx

URL, PID = sys.argv[1], int(sys.argv[2])
CLIENTS = int(sys.argv[3]) if len(sys.argv) > 3 else 200
SECONDS = float(sys.argv[4]) if len(sys.argv) > 4 else 600
MALFORMED = [
    b"{", b"[]", b'{"prompt": {}}', b'{"prompt": "a", "steps": -1}', b'{"prompt": "a", "nonsense": 1}',
    b'{"prompt": "a", "max_tokens": 99999999}', b"\xff\xfe", b'{"prompt": [4000000000]}',
]
NAMED = {400, 408, 413, 415, 429, 500, 503, 504}


def resident():
    with open(f"/proc/{PID}/status", encoding="ascii") as status:
        return int(next(line for line in status if line.startswith("VmRSS")).split()[1]) / 1024


def task(index):
    random_task = random.Random(index)
    words = "the king shall not speak of love and war to thee".split()
    return {
        "prompt": " ".join(random_task.choices(words, k=random_task.randint(1, 6))) + f" {index}:",
        "max_tokens": random_task.randint(4, 48), "seed": index, "echo": True,
        "steps": random_task.choice([4, 8, 16]), "temperature": random_task.choice([0.7, 1.0]),
        "order": random_task.choice(["uniform", "sequential", "low-discrepancy"]),
    }


async def main():
    tasks = [task(index) for index in range(64)]
    counts, times, peak = {}, [], resident()
    limits = httpx.Limits(max_connections=CLIENTS + 8, max_keepalive_connections=CLIENTS + 8)
    async with httpx.AsyncClient(base_url=URL, limits=limits, timeout=120) as client:
        known = []
        for body in tasks:
            known.append((await client.post("/v1/completions", json=body)).json()["choices"][0]["text"])
        start, began = resident(), time.monotonic()

        def count(what):
            counts[what] = counts.get(what, 0) + 1

        async def one(number):
            draw = random.Random(number)
            while time.monotonic() - began < SECONDS:
                if draw.random() < 0.05:
                    body = draw.choice(MALFORMED)
                    response = await client.post(
                        "/v1/completions", content=body, headers={"Content-Type": "application/json"})
                    fine = response.status_code == 400 and response.json()["error"]["message"]
                    count("malformed, refused" if fine else f"malformed, {response.status_code}: WRONG")
                    continue
                index = draw.randrange(len(tasks))
                asked = time.monotonic()
                request = client.post("/v1/completions", json=tasks[index])
                try:
                    leaves = draw.random() < 0.1
                    response = await asyncio.wait_for(request, draw.uniform(0, 1.0) if leaves else 110)
                except (asyncio.TimeoutError, TimeoutError):
                    count("went away" if leaves else "no answer: WRONG")
                    continue
                except httpx.HTTPError as error:
                    count(f"{type(error).__name__}: WRONG")
                    continue
                if response.status_code == 200:
                    times.append(time.monotonic() - asked)
                    text, prompt = response.json()["choices"][0]["text"], tasks[index]["prompt"]
                    if not text.startswith(prompt):
                        count("another's text: WRONG")
                    elif text == known[index]:
                        count("answered")
                    else:
                        # Rounding in a larger batch may choose another token where two were as good as equal.
                        count("answered, other tokens")
                elif response.status_code in NAMED and response.json()["error"]["code"]:
                    count(f"refused, {response.status_code}")
                    await asyncio.sleep(draw.uniform(0.05, 0.5))
                else:
                    count(f"{response.status_code}: WRONG")

        async def watch():
            nonlocal peak
            while time.monotonic() - began < SECONDS:
                peak = max(peak, resident())
                await asyncio.sleep(1)

        await asyncio.gather(watch(), *(one(number) for number in range(CLIENTS)))
        seconds = time.monotonic() - began
        await asyncio.sleep(2)
        text = (await client.get("/metrics")).text
    gauges = ("pgm_samples_in_flight{", "pgm_samples_waiting{")
    in_flight = sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(gauges))
    times.sort()
    at = lambda share: times[min(int(len(times) * share), len(times) - 1)]
    print(f"{CLIENTS} clients, {seconds:.0f} s, {len(times) / seconds:.1f} answers/s")
    for what, n in sorted(counts.items()):
        print(f"  {what}: {n}")
    print(f"seconds an answer: p50 {at(0.5):.2f}, p99 {at(0.99):.2f}, longest {times[-1]:.2f}")
    print(f"resident MiB: start {start:.0f}, peak {peak:.0f}, end {resident():.0f}; in flight at the end: {in_flight:.0f}")
    wrong = [what for what in counts if "WRONG" in what] + (["samples left in flight"] if in_flight else [])
    if wrong:
        sys.exit(f"wrong: {', '.join(wrong)}")
    print("1 passed, 0 failed")


asyncio.run(main())
