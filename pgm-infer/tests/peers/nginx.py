"""Two servers behind nginx, of which one is taken out under load: python nginx.py PGM_INFER MODEL.

nginx runs with examples/nginx/pgm.conf. Clients send completions, streams and requests of the other kinds all the time. One
server gets SIGTERM: it says 503 at /health, finishes what it has and exits with 0, and no client sees an error. It is started
again, takes requests, and is taken out once more, without time to leave. Needs the standard library only.
"""

import collections
import http.client
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

BINARY, MODEL = sys.argv[1], Path(sys.argv[2])
CONF = Path(__file__).resolve().parents[3] / "examples" / "nginx" / "pgm.conf"
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin")
# In the conf, and here.
PORTS = {8080: 8140, 8081: 8141, 8082: 8142}
FRONT, SERVERS = PORTS[8080], (PORTS[8081], PORTS[8082])
N_CLIENTS = 8


def check(name, fine, shown):
    if not fine:
        sys.exit(f"failed: {name}: {shown}")
    print(f"ok: {name}: {shown}", flush=True)


def ask(port, method, path, body=None):
    """Status and text of an answer; an error of the connection is raised."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        headers = {"content-type": "application/json"} if body else {}
        connection.request(method, path, json.dumps(body) if body else None, headers)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def answers(port, path):
    for _ in range(600):
        try:
            if ask(port, "GET", path)[0] == 200:
                return True
        except OSError:
            pass
        time.sleep(0.1)
    return False


def start(port, *options):
    arguments = [BINARY, "serve", "--model", f"{MODEL}=tiny", "--port", str(port), *options]
    server = subprocess.Popen(arguments, stderr=subprocess.DEVNULL)
    if answers(port, "/health"):
        return server
    sys.exit(f"the server at {port} does not become ready")


def start_nginx(within):
    conf = CONF.read_text(encoding="utf-8")
    for wanted, used in PORTS.items():
        conf = re.sub(rf"\b{wanted}\b(?=[; ])", str(used), conf)
    paths = "".join(
        f"{kind}_temp_path {within}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    whole = within / "nginx.conf"
    whole.write_text(
        f"daemon off; master_process off; pid {within}/pid; error_log {within}/error.log;\n"
        f"events {{ worker_connections 256; }}\nhttp {{ access_log off;\n{paths}{conf}\n}}\n",
        encoding="utf-8",
    )
    nginx = subprocess.Popen([NGINX, "-c", str(whole), "-p", str(within), "-e", f"{within}/error.log"])
    if answers(FRONT, "/version"):
        return nginx
    sys.exit("nginx does not answer: " + (within / "error.log").read_text(encoding="utf-8"))


class Load:
    """Clients that send one request after the other until they are stopped."""

    def __init__(self):
        self.counts, self.errors, self.lock = collections.Counter(), [], threading.Lock()
        self.stopped = threading.Event()
        self.threads = [threading.Thread(target=self.client, args=(number,)) for number in range(N_CLIENTS)]
        for thread in self.threads:
            thread.start()

    def client(self, number):
        turn = 0
        while not self.stopped.is_set():
            turn += 1
            seed = 1000 * number + turn
            long = {"prompt": "To be", "max_tokens": 60, "steps": 60, "seed": seed}
            kind, path, body = [
                ("completion", "/v1/completions", {"prompt": "To be", "max_tokens": 12, "steps": 4, "seed": seed}),
                ("stream", "/v1/completions", {**long, "stream": True}),
                ("infill", "/infill", {"template": "To be, or {12} to be", "steps": 6, "seed": seed}),
                ("long", "/v1/completions", {**long, "n": 2}),
            ][(number + turn) % 4]
            try:
                status, text = ask(FRONT, "POST", path, body)
                fine = status == 200 and (kind != "stream" or text.rstrip().endswith("data: [DONE]"))
                fine = fine and '"error"' not in text
                problem = f"{kind}: {status}: {text[-300:]}"
            except (OSError, http.client.HTTPException) as error:
                fine, problem = False, f"{kind}: {error!r}"
            with self.lock:
                self.counts[kind] += 1
                if not fine:
                    self.errors.append(problem)

    def total(self):
        with self.lock:
            return sum(self.counts.values())

    def wait_for(self, n):
        goal = self.total() + n
        deadline = time.monotonic() + 120
        while self.total() < goal and time.monotonic() < deadline:
            time.sleep(0.05)
        check("requests go on", self.total() >= goal, f"{self.total()} answers")

    def stop(self):
        self.stopped.set()
        for thread in self.threads:
            thread.join()


def served(port):
    metrics = ask(port, "GET", "/metrics")[1]
    counts = re.findall(r'^pgm_samples_total\{model="tiny",finish="(?:complete|stop)"\} (\d+)', metrics, re.MULTILINE)
    return sum(map(int, counts))


def main():
    within = Path(tempfile.mkdtemp())
    processes = []
    try:
        # One of them has two copies of the model.
        servers = [start(port, "--drain", "2", "--device", device) for port, device in zip(SERVERS, ["flex,flex", "flex"])]
        processes += servers
        nginx = start_nginx(within)
        processes.append(nginx)
        load = Load()
        load.wait_for(60)
        shares = [served(port) for port in SERVERS]
        check("both servers work", min(shares) > 2, f"samples {shares}")

        servers[0].send_signal(signal.SIGTERM)
        time.sleep(0.5)
        status, text = ask(SERVERS[0], "GET", "/health")
        check("a server that leaves says so", status == 503 and "stopping" in text, f"{status} {text}")
        status, text = ask(SERVERS[0], "POST", "/infill", {"template": "To be {4}", "steps": 2})
        check("and takes requests meanwhile", status == 200, f"{status} {text[:80]}")
        load.wait_for(60)
        check("it ends by itself", servers[0].wait(60) == 0, "exit 0")
        load.wait_for(60)
        check("no client saw it", not load.errors, load.errors[:3] or dict(load.counts))

        servers[0] = start(SERVERS[0])
        processes.append(servers[0])
        time.sleep(2.5)
        load.wait_for(60)
        check("it is back", served(SERVERS[0]) > 0, f"{served(SERVERS[0])} samples")

        # Without time to leave nginx finds out by itself.
        servers[0].send_signal(signal.SIGTERM)
        check("without --drain it ends, too", servers[0].wait(60) == 0, "exit 0")
        load.wait_for(60)
        load.stop()
        check("no client saw any of it", not load.errors, load.errors[:3] or dict(load.counts))
    finally:
        for process in processes:
            if process.poll() is None:
                process.terminate()
                process.wait(60)
        shutil.rmtree(within, ignore_errors=True)


if __name__ == "__main__":
    if NGINX is None:
        print("servers behind nginx are left out: no nginx")
    else:
        main()
