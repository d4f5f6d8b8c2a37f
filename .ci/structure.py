#!/usr/bin/env python3
"""Checks the structure that ARCHITECTURE.md promises, from the sources alone.

* No circle of imports among the files of a crate. `use` counts, `pub use` (a name shown elsewhere) does not: it is
  followed to the file that defines the name. Tests are left out.
* No Rust file over 500 lines.
* README.md within 120 lines, ARCHITECTURE.md within 150.
"""

import collections
import pathlib
import re
import subprocess
import sys

MOST_LINES = {"README.md": 120, "ARCHITECTURE.md": 150}
MOST_RUST = 500
ROOT = pathlib.Path(__file__).resolve().parent.parent


def tracked(pattern):
    out = subprocess.run(["git", "ls-files", pattern], cwd=ROOT, capture_output=True, text=True, check=True)
    return [pathlib.Path(line) for line in out.stdout.splitlines()]


def module_path(file, src):
    """Segments of a file's module below its crate: `src/ops/mod.rs` is `("ops",)`."""
    parts = list(file.relative_to(src).with_suffix("").parts)
    if parts[-1] in ("mod", "lib", "main"):
        parts.pop()
    return tuple(parts)


def uses(text):
    """The paths of the `use` items of a file, braces expanded, without its test modules."""
    text = re.sub(r"//[^\n]*", "", text)
    text = text.split("#[cfg(test)]\nmod ")[0]
    for item in re.finditer(r"^\s*(pub(?:\([^)]*\))?\s+)?use\s+([^;]+);", text, re.M):
        for path in expand(re.sub(r"\s+", " ", item.group(2)).strip()):
            yield item.group(1) is not None, path


def expand(tree):
    brace = tree.find("{")
    if brace < 0:
        return [tree.split(" as ")[0].strip()]
    head, inner, depth, start, parts = tree[:brace], tree[brace + 1 : tree.rfind("}")], 0, 0, []
    for index, letter in enumerate(inner + ","):
        depth += (letter == "{") - (letter == "}")
        if letter == "," and depth == 0:
            parts.append(inner[start:index].strip())
            start = index + 1
    return [path for part in parts if part for path in expand(head + part)]


def resolve(path, here, files, shown):
    """The file that defines what a path names, through any number of re-exports; absent for other crates."""
    segments = path.split("::")
    if segments[0] == "crate":
        absolute = segments[1:]
    elif segments[0] in ("self", "super"):
        base = list(here)
        while segments and segments[0] in ("self", "super"):
            if segments.pop(0) == "super":
                base = base[:-1]
        absolute = base + segments
    elif here + (segments[0],) in files:
        absolute = list(here) + segments
    else:
        return None
    for _ in range(8):
        end = next((end for end in range(len(absolute), -1, -1) if tuple(absolute[:end]) in files), None)
        if end is None:
            return None
        module, rest = tuple(absolute[:end]), absolute[end:]
        behind = shown.get((module, rest[0])) if rest else None
        if behind is None:
            return module
        absolute = list(behind) + rest[1:]
    return module


def graph(src):
    files = {module_path(file, src): file for file in tracked(f"{src}/**") if file.suffix == ".rs"}
    files = {module: file for module, file in files.items() if file.name not in ("tests.rs", "main.rs")}
    listed = {module: list(uses((ROOT / file).read_text())) for module, file in files.items()}
    shown = {}
    for module, items in listed.items():
        for public, path in items:
            segments = path.split("::")
            if public and segments[-1] not in ("*", "self"):
                segments = segments[1:] if segments[0] == "crate" else list(module) + segments
                shown[module, segments[-1]] = segments
    edges = collections.defaultdict(set)
    for module, items in listed.items():
        for public, path in items:
            to = None if public else resolve(path, module, files, shown)
            if to is not None and to != module:
                edges[module].add(to)
    return files, edges


def circles(edges):
    """Strongly connected components of more than one file (Tarjan)."""
    index, low, stack, on, found, counter = {}, {}, [], set(), [], [0]

    def visit(node):
        index[node] = low[node] = counter[0]
        counter[0] += 1
        stack.append(node)
        on.add(node)
        for to in edges.get(node, ()):
            if to not in index:
                visit(to)
                low[node] = min(low[node], low[to])
            elif to in on:
                low[node] = min(low[node], index[to])
        if low[node] == index[node]:
            members = []
            while True:
                members.append(stack.pop())
                on.discard(members[-1])
                if members[-1] == node:
                    break
            if len(members) > 1:
                found.append(members)

    for node in list(edges):
        if node not in index:
            visit(node)
    return found


def main():
    sys.setrecursionlimit(10_000)
    problems, n_files, n_edges = [], 0, 0
    for manifest in tracked("**/Cargo.toml"):
        src = manifest.parent / "src"
        if not (ROOT / src).is_dir():
            continue
        files, edges = graph(src)
        n_files, n_edges = n_files + len(files), n_edges + sum(map(len, edges.values()))
        for members in circles(edges):
            problems.append("a circle of imports: " + ", ".join(str(files[member]) for member in sorted(members)))
    for file in tracked("*.rs"):
        lines = (ROOT / file).read_text().count("\n")
        if lines > MOST_RUST:
            problems.append(f"{file} has {lines} lines, at most {MOST_RUST} are asked for")
    for name, most in MOST_LINES.items():
        lines = (ROOT / name).read_text().count("\n")
        if lines > most:
            problems.append(f"{name} has {lines} lines, at most {most} are asked for")
    for problem in problems:
        print(problem)
    print(f"{n_files} files, {n_edges} imports, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
