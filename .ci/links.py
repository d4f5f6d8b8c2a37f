#!/usr/bin/env python3
"""Checks the links of all Markdown files, and that docs/SUMMARY.md has every page of docs/ once. Needs no network.

* A relative link or image names a file that Git tracks, or a folder with such files.
* A #anchor is a heading of the page that it is in. Links to other sites are not followed.
"""

import collections
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).resolve().parent.parent).resolve()
# The text of a link may begin on an earlier line.
INLINE = re.compile(r"\]\(\s*<?([^()\s<>]+(?:\([^()\s]*\))?)>?(?:\s+\"[^\"]*\")?\s*\)")
REFERENCE = re.compile(r"^ {0,3}\[[^\]^]+\]:\s+<?(\S+?)>?(?:\s|$)")
HTML = re.compile(r"<(?:a|img)\b[^>]*?\b(?:href|src)=[\"']([^\"']+)[\"']", re.I)
FENCE = re.compile(r"^\s{0,3}(?:> ?)*(`{3,}|~{3,})")


def tracked():
    out = subprocess.run(["git", "ls-files", "-z", "-c", "-o", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True)
    return [path for path in out.stdout.decode().split("\0") if path and (ROOT / path).exists()]


def prose(text):
    """The numbered lines outside of code blocks and comments, and without `code`."""
    fence, is_comment = None, False
    for number, line in enumerate(text.splitlines(), 1):
        found = FENCE.match(line)
        if found and (fence is None or (found.group(1)[0] == fence[0] and len(found.group(1)) >= len(fence))):
            fence = None if fence else found.group(1)
        elif fence is None:
            line = re.sub(r"<!--.*?-->", "", line)
            is_comment = "-->" not in line and (is_comment or "<!--" in line)
            if not is_comment:
                yield number, line


def slug(title):
    """The anchor that GitHub and mdBook give a heading."""
    title = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", title).strip().lower()
    return re.sub(r"[^\w\- ]", "", title).replace(" ", "-")


def anchors(text):
    seen, found = collections.Counter(), set()
    for _, line in prose(text):
        heading = re.match(r" {0,3}#{1,6}\s+(.*?)\s*#*$", line)
        if heading:
            name = slug(heading.group(1))
            found.add(name if seen[name] == 0 else f"{name}-{seen[name]}")
            seen[name] += 1
        found.update(re.findall(r"<a\b[^>]*?\b(?:id|name)=[\"']([^\"']+)[\"']", line))
    return found


def links(text):
    for number, line in prose(text):
        line = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", line) if "`" in line else line
        for pattern in (INLINE, REFERENCE, HTML):
            yield from ((number, target) for target in pattern.findall(line))


def main():
    files = tracked()
    folders = {str(parent) for path in files for parent in pathlib.PurePosixPath(path).parents}
    pages = {path: (ROOT / path).read_text(encoding="utf-8") for path in files if path.endswith(".md")}
    headings = {path: anchors(text) for path, text in pages.items()}
    problems, n_links, summary = [], 0, collections.Counter()
    for page, text in sorted(pages.items()):
        for number, target in links(text):
            if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*:|//", target):
                continue
            n_links += 1
            path, _, anchor = target.partition("#")
            there = os.path.normpath(os.path.join(os.path.dirname(page), path)) if path else page
            if page == "docs/SUMMARY.md":
                summary[there] += 1
            if there not in files and there not in folders:
                problems.append(f"{page}:{number}: {target} names no file; correct the link or add {there}")
            elif anchor and there in headings and anchor not in headings[there]:
                near = ", ".join(sorted(headings[there])) or "none"
                problems.append(f"{page}:{number}: {there} has no heading #{anchor}; it has {near}")
    for page in sorted(path for path in pages if path.startswith("docs/") and path != "docs/SUMMARY.md"):
        if summary[page] != 1:
            problems.append(f"docs/SUMMARY.md has {page} {summary[page]} times; give it one place in the book")
    for problem in problems:
        print(problem)
    print(f"{n_links} links of {len(pages)} pages, {len(problems)} problems")
    sys.exit(1 if problems else 0)


main()
