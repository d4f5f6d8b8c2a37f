"""Failures that a server must survive: python faults.py PGM_INFER MODEL.

Broken model folders, a folder that is replaced and removed while the server runs, a log on a full disk, and SIGTERM with sixty
running requests. The script fails if a request gets neither an answer nor an error with a code.
"""

import asyncio
import collections
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

BINARY, MODEL = sys.argv[1], Path(sys.argv[2])
PORT = 8139
URL = f"http://127.0.0.1:{PORT}"


def start(folder, *options, stderr=subprocess.PIPE):
    arguments = [BINARY, "serve", "--model", f"{folder}=tiny", "--port", str(PORT), *options]
    return subprocess.Popen(arguments, stderr=stderr, text=True)


def wait_until_ready():
    for _ in range(600):
        try:
            if httpx.get(f"{URL}/health").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    sys.exit("the server does not become ready")


def check(name, fine, shown):
    if not fine:
        sys.exit(f"failed: {name}: {shown}")
    print(f"ok: {name}: {shown}", flush=True)


def folders_that_are_no_models(within):
    def broken(name, change):
        folder = within / name
        shutil.copytree(MODEL, folder)
        change(folder)
        return folder

    weights = (MODEL / "model.safetensors").read_bytes()
    config = json.loads((MODEL / "config.json").read_text(encoding="utf-8"))
    config["backbone"]["hidden_size"] *= 2
    cases = {
        "no folder": within / "nowhere",
        "no weights": broken("a", lambda folder: (folder / "model.safetensors").unlink()),
        "half of the weights": broken("b", lambda f: (f / "model.safetensors").write_bytes(weights[: len(weights) // 2])),
        "weights of noise": broken("c", lambda f: (f / "model.safetensors").write_bytes(b"\xff" * 4096)),
        "another size": broken("d", lambda f: (f / "config.json").write_text(json.dumps(config), encoding="utf-8")),
        "a configuration of noise": broken("e", lambda f: (f / "config.json").write_bytes(b"{\x00")),
        "no tokenizer": broken("f", lambda folder: (folder / "tokenizer.json").unlink()),
    }
    for name, folder in cases.items():
        server = start(folder)
        _, told = server.communicate(timeout=60)
        last = told.strip().splitlines()[-1]
        check(name, server.returncode == 1 and "panicked" not in told and str(folder) in last, last)


def a_full_disk():
    with open("/dev/full", "w", encoding="ascii") as full:
        server = start(MODEL, stderr=full)
        wait_until_ready()
        answer = httpx.post(f"{URL}/infill", json={"template": "a {3}", "steps": 2}, timeout=60)
        server.send_signal(signal.SIGTERM)
        code = server.wait(timeout=30)
    check("a log on a full disk", answer.status_code == 200 and code == 0, f"{answer.status_code}, exit {code}")


async def a_folder_that_goes_and_a_signal(within):
    folder = within / "moved"
    shutil.copytree(MODEL, folder)
    server = start(folder, "--queue", "64", "--grace", "3")
    wait_until_ready()
    limits = httpx.Limits(max_connections=200)
    async with httpx.AsyncClient(base_url=URL, timeout=60, limits=limits) as client:
        async def text():
            answer = await client.post("/v1/completions", json={"prompt": "a ", "seed": 1})
            return answer.json()["choices"][0]["text"]

        before = await text()
        shutil.rmtree(folder)
        folder.mkdir()
        (folder / "config.json").write_text("{}", encoding="ascii")
        (folder / "model.safetensors").write_bytes(b"\x00" * 100)
        replaced = await text()
        shutil.rmtree(folder)
        check("the folder replaced, then removed", before == replaced == await text(), repr(before))

        counts = collections.Counter()

        async def one(number):
            body = {"prompt": f"{number} ", "max_tokens": 40, "steps": 20}
            if number % 2:
                body |= {"steps": 4096, "order": "remask", "remask_rate": 1.0}
            answer = await client.post("/v1/completions", json=body)
            error = answer.json().get("error", {})
            counts[answer.status_code, error.get("code")] += 1

        tasks = [asyncio.create_task(one(number)) for number in range(60)]
        await asyncio.sleep(1)
        began = time.monotonic()
        server.send_signal(signal.SIGTERM)
        await asyncio.gather(*tasks)
        code = await asyncio.to_thread(server.wait, 30)
        took = time.monotonic() - began
        fine = set(counts) <= {(200, None), (503, "stopping")} and counts.total() == 60 and code == 0
        check("SIGTERM with 60 running requests", fine, f"{dict(counts)}, exit {code} after {took:.1f} s")


with tempfile.TemporaryDirectory() as place:
    folders_that_are_no_models(Path(place))
    a_full_disk()
    asyncio.run(a_folder_that_goes_and_a_signal(Path(place)))
