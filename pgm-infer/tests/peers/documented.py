"""The clients of docs/server.md, as they stand there, against a running server: python documented.py URL.

Only the address is another. They ask for the same blank with the same seed, so they must get the same text. The one in
JavaScript runs in Node and in Chromium, as far as there are any.
"""

import json
import pathlib
import re
import shutil
import subprocess
import sys

URL = sys.argv[1]
PAGE = pathlib.Path(__file__).resolve().parents[3] / "docs/server.md"
CHROMIUM = pathlib.Path("/usr/bin/chromium")


def blocks():
    """The code blocks of the section, by language."""
    section = PAGE.read_text(encoding="utf-8").split("\n## Clients\n")[1].split("\n## ")[0]
    found = dict(re.findall(r"^```(\w+)\n(.*?)^```$", section, re.M | re.S))
    if sorted(found) != ["js", "python", "sh"]:
        sys.exit(f"docs/server.md has clients in {sorted(found)}, expected js, python and sh")
    return {language: code.replace("http://127.0.0.1:8080", URL) for language, code in found.items()}


def run(name, command, code):
    done = subprocess.run(command, input=code, capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        sys.exit(f"{name}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def same(name, text):
    if text != expected:
        sys.exit(f"{name}: {text!r} instead of {expected!r}")
    print(f"ok: {name} {text!r}")


def in_chromium(code):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        page, lines = browser.new_page(), []
        page.on("console", lambda message: lines.append(message.text))
        page.goto(URL)
        page.evaluate(f"async () => {{ {code} }}")
        browser.close()
    return lines


def steps(name, lines):
    """The text as it fills: fewer and fewer open places, then the answer."""
    text = "\n".join(lines)
    if not text.startswith("To be, or ____________ to be\n"):
        sys.exit(f"{name}: {text!r} does not begin with twelve open places")
    same(name, text[-len(expected):])


code = blocks()
answer, _, events = run("curl", ["bash", "-euo", "pipefail"], code["sh"]).partition("data: ")
answer = json.loads(answer)
expected = answer["text"]
if len(answer["blanks"]) != 1 or not expected.startswith("To be, or ") or not expected.endswith(" to be"):
    sys.exit(f"curl: {answer}")
print(f"ok: curl {expected!r}")
last = json.loads(events.strip().split("data: ")[-1])
same("curl, events", last["text"])
same("Python", "To be, or " + run("Python", [sys.executable, "-"], code["python"]) + " to be")
if shutil.which("node"):
    steps("Node", run("Node", ["node", "--input-type=module", "-"], code["js"]).removesuffix("\n").split("\n"))
else:
    print("left out: no node")
if CHROMIUM.exists():
    steps("Chromium", in_chromium(code["js"]))
else:
    print("left out: no /usr/bin/chromium")
