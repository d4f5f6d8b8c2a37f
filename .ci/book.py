#!/usr/bin/env python3
"""A preprocessor of mdBook: links from a page of docs/ to a file outside it.

The book has only the pages of docs/. In a workflow of GitHub such a link leads to the file in the repository. Elsewhere
it becomes the path of the file in the sources.
"""

import json
import os
import re
import sys

LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(\.\./([^)#\s]+)(#[^)\s]*)?\)")


def link_out(match):
    text, path, anchor = match.group(1), match.group(2), match.group(3) or ""
    server, repository = os.environ.get("GITHUB_SERVER_URL"), os.environ.get("GITHUB_REPOSITORY")
    if server and repository:
        return f"[{text}]({server}/{repository}/blob/{os.environ.get('GITHUB_SHA', 'HEAD')}/{path}{anchor})"
    return f"`{path}`" if text.strip("`") in path else f"{text} (`{path}`)"


def visit(item):
    chapter = item.get("Chapter") if isinstance(item, dict) else None
    if chapter:
        chapter["content"] = LINK.sub(link_out, chapter["content"])
        for inner in chapter["sub_items"]:
            visit(inner)


if len(sys.argv) > 1 and sys.argv[1] == "supports":
    sys.exit(0)
_, book = json.load(sys.stdin)
for item in book.get("items", book.get("sections", [])):
    visit(item)
json.dump(book, sys.stdout)
