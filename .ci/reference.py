#!/usr/bin/env python3
"""Checks that docs/commands.md and docs/api.md tell what the built commands and the server tell themselves.

    .ci/reference.py target/debug            # fails where a page is stale
    .ci/reference.py target/debug --write    # writes the pages
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = ["pgm-data", "pgm-train", "pgm-infer"]
WRITE = "cargo build && .ci/reference.py target/debug --write"


def help_of(binary, words):
    # Help is as wide as the terminal, so it gets none.
    text = subprocess.run([binary, *words, "-h"], check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def subcommands(text):
    listed = re.search(r"^Commands:\n((?:  .*\n?)+)", text, re.M)
    names = re.findall(r"^  (\S+)", listed.group(1), re.M) if listed else []
    return [name for name in names if name != "help"]


def commands(binaries):
    page = ["# Which commands and options are there?", "", f"<!-- Made from the commands themselves: {WRITE} -->", ""]
    page += ["What each command prints with `-h`. `--help` says more about some options.", ""]

    def add(name, words):
        text = help_of(binaries / name, words)
        title = " ".join([name, *words])
        page.extend([f"{'#' * (2 + min(len(words), 1))} {title}", "", "```text", text, "```", ""])
        for word in subcommands(text):
            add(name, [*words, word])

    for name in COMMANDS:
        add(name, [])
    return "\n".join(page)


def openapi(binaries):
    """What the server says of itself."""
    with tempfile.TemporaryDirectory() as folder:
        socket = f"{folder}/server.sock"
        model = ROOT / "pgm-infer/tests/byte-model"
        server = subprocess.Popen([binaries / "pgm-infer", "serve", "--model", model, "--host", socket], stderr=subprocess.DEVNULL)
        try:
            ask = ["curl", "-sS", "--fail", "--unix-socket", socket, "http://localhost/openapi.json"]
            for _ in range(300):
                if server.poll() is not None:
                    sys.exit("pgm-infer serve has ended")
                answer = subprocess.run(ask, capture_output=True, text=True)
                if answer.returncode == 0:
                    return json.loads(answer.stdout)
                time.sleep(0.1)
            sys.exit("pgm-infer serve does not answer")
        finally:
            server.kill()
            server.wait()


def number(value):
    return f"{value:g}" if abs(value) < 1e6 else str(value)


def type_of(schema, schemas):
    """A type with its limits, in words."""
    if "$ref" in schema:
        return type_of(schemas[schema["$ref"].rsplit("/", 1)[1]], schemas)
    for key in ("anyOf", "oneOf"):
        if key in schema:
            kinds = [type_of(option, schemas) for option in schema[key]]
            return " or ".join(dict.fromkeys(kind for kind in kinds if kind))
    if "enum" in schema:
        return ", ".join(f"`{json.dumps(value)}`" if value in ("", {}) else f"`{value}`" for value in schema["enum"] if value is not None)
    kinds = schema.get("type", "any")
    kinds = [kind for kind in ([kinds] if isinstance(kinds, str) else kinds) if kind != "null"]
    words = {"string": "text", "integer": "whole number", "boolean": "true or false", "array": "list"}
    kind = " or ".join(words.get(kind, kind) for kind in kinds)
    if "array" in kinds and "items" in schema:
        kind += f" of ({type_of(schema['items'], schemas)})"
    low, high = schema.get("minimum"), schema.get("maximum")
    if "exclusiveMinimum" in schema:
        kind += f", above {number(schema['exclusiveMinimum'])}"
    if low is not None and low == high:
        kind += f", {number(low)} only"
    elif low is not None and high is not None:
        kind += f", {number(low)} to {number(high)}"
    elif low is not None or high is not None:
        kind += f", at least {number(low)}" if low is not None else f", at most {number(high)}"
    if schema.get("maxItems"):
        exact = schema.get("minItems") == schema["maxItems"]
        kind += f", {'exactly' if exact else 'at most'} {schema['maxItems']}"
    return kind if kinds else ""


def cell(text):
    return " ".join(text.split()).replace("|", "\\|")


def meaning_of(about, schemas):
    if about.get("description"):
        return about["description"]
    for option in about.get("oneOf", []):
        if option.get("description"):
            return option["description"]
    refs = [option["$ref"].rsplit("/", 1)[1] for option in [about, *about.get("oneOf", [])] if "$ref" in option]
    inner = schemas[refs[0]] if refs else {}
    parts = [f"`{key}`: {value['description']}" for key, value in sorted(inner.get("properties", {}).items())]
    return " ".join(parts) or inner.get("description", "")


def fields(name, schemas):
    """A table of the fields; those that are treated alike share a row."""
    schema = schemas[name]
    rows, alike = [], {}
    for field, about in sorted(schema["properties"].items()):
        meaning = cell(meaning_of(about, schemas))
        if meaning == "Accepted and ignored." or meaning.startswith("llama.cpp's own; ") and type_of(about, schemas) == "any":
            alike.setdefault(meaning, []).append(f"`{field}`")
            continue
        needed = ", required" if field in schema.get("required", []) else ""
        rows.append(f"| `{field}` | {cell(type_of(about, schemas))}{needed} | {meaning} |")
    rows += [f"| {', '.join(names)} | any | {meaning} |" for meaning, names in alike.items()]
    return ["| field | type | meaning |", "|---|---|---|", *rows]


def api(document):
    schemas = document["components"]["schemas"]
    page = ["# Which fields has each route?", "", f"<!-- Made from the server's /openapi.json: {WRITE} -->", ""]
    page += ["The fields of requests. A field that is left out or `null` has its default. `/v1/images/edits` takes the same fields as a form, with", "files for `image` and `mask`. Answers are in `/openapi.json`; [server.md](server.md) has examples, events and errors.", ""]
    # Routes with fields first, texts before pictures.
    order = ["/v1/completions", "/v1/chat/completions", "/infill", "/v1/images/generations", "/v1/images/edits", "/score"]
    paths = document["paths"].items()
    for path, methods in sorted(paths, key=lambda item: order.index(item[0]) if item[0] in order else len(order)):
        for method, route in methods.items():
            page += [f"## {method.upper()} {path}", "", cell(route["summary"] + ".")]
            if route.get("description"):
                page += ["", cell(route["description"])]
            page.append("")
            body = route.get("requestBody", {}).get("content", {})
            if "application/json" in body:
                page += fields(body["application/json"]["schema"]["$ref"].rsplit("/", 1)[1], schemas) + [""]
    return "\n".join(page)


def main():
    binaries = Path(sys.argv[1]).resolve()
    pages = {"commands.md": commands(binaries), "api.md": api(openapi(binaries))}
    stale = []
    for name, text in pages.items():
        path = ROOT / "docs" / name
        text = text.rstrip() + "\n"
        if "--write" in sys.argv:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            stale.append(f"docs/{name} is stale; write it anew: {WRITE}")
    sys.exit("\n".join(stale) or None)


if __name__ == "__main__":
    for name in ("RUST_LOG", "COLUMNS"):
        os.environ.pop(name, None)
    main()
