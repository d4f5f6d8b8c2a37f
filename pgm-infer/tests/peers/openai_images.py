"""The official OpenAI client draws and edits pictures: python openai_images.py URL MODEL.

MODEL is the name of a model of pictures that is served at URL.
"""

import base64
import io
import struct
import sys
import zlib

import openai

URL, MODEL = sys.argv[1], sys.argv[2]
client = openai.OpenAI(base_url=f"{URL}/v1", api_key="none", max_retries=0)
passed = 0


def check(name, fine, shown=""):
    global passed
    if not fine:
        sys.exit(f"{name}: {shown}")
    passed += 1
    print(f"ok: {name} {shown}")


def sizes(png):
    if png[:8] != b"\x89PNG\r\n\x1a\n":
        sys.exit(f"not a PNG: {png[:16]}")
    return struct.unpack(">II", png[16:24])


def transparent(width, height, left):
    """A PNG in grey whose first columns are transparent."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = b"\0" + b"".join(bytes([90, 0 if x < left else 255]) for x in range(width))
    header = struct.pack(">IIBBBBB", width, height, 8, 4, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row * height)) + chunk(b"IEND", b"")


about = client.models.retrieve(MODEL).model_extra
width, height = about["size"]
ask = dict(model=MODEL, prompt="0", extra_body={"seed": 5, "steps": 8})

whole = client.images.generate(**ask, n=2, size=f"{width}x{height}", response_format="b64_json")
pngs = [base64.b64decode(image.b64_json) for image in whole.data]
check("generate", [sizes(png) for png in pngs] == [(width, height)] * 2, whole.size)
check("usage", whole.usage.output_tokens == 2 * about["grid"][0] * about["grid"][1] and whole.created > 0)
check("two seeds", pngs[0] != pngs[1])
again = client.images.generate(**ask)
check("the same seed", base64.b64decode(again.data[0].b64_json) == pngs[0])

events = list(client.images.generate(**ask, stream=True, partial_images=3))
kinds = [event.type for event in events]
check("streaming", kinds == ["image_generation.partial_image"] * 3 + ["image_generation.completed"], kinds)
check("indices", [event.partial_image_index for event in events[:3]] == [0, 1, 2])
check("the last event has the picture", base64.b64decode(events[-1].b64_json) == pngs[0])

mask = transparent(width, height, width // 2)
edits = dict(model=MODEL, prompt="1", mask=("mask.png", io.BytesIO(mask).read(), "image/png"), extra_body={"seed": 1, "steps": 4})
edited = client.images.edit(**edits, image=("image.png", pngs[0], "image/png"), n=2)
check("edit", len(edited.data) == 2 and sizes(base64.b64decode(edited.data[1].b64_json)) == (width, height))
check("given cells", 0 < edited.usage.input_tokens < 2 * about["grid"][0] * about["grid"][1], edited.usage.input_tokens)
own = client.images.edit(model=MODEL, prompt="1", image=mask)
check("a picture that is its own mask", len(own.data) == 1)
events = list(client.images.edit(**edits, image=pngs[0], stream=True, partial_images=1))
check("edits are streamed", [event.type for event in events] == ["image_edit.partial_image", "image_edit.completed"])
check("the same edit", events[-1].b64_json == edited.data[0].b64_json)

for name, call in [
    ("a class that does not exist", lambda: client.images.generate(**{**ask, "prompt": "a cat on a mat"})),
    ("another size", lambda: client.images.generate(**ask, size="1024x1024")),
    ("an address", lambda: client.images.generate(**ask, response_format="url")),
    ("a text file", lambda: client.images.edit(**edits, image=("a.txt", b"a text", "text/plain"))),
    ("an unknown model", lambda: client.images.generate(**{**ask, "model": "none"})),
    ("text from a model of pictures", lambda: client.completions.create(model=MODEL, prompt="a")),
]:
    try:
        call()
        check(name, False, "was answered")
    except (openai.NotFoundError, openai.BadRequestError) as error:
        check(name, error.body["message"] != "" and error.body["param"] != "", error.body["message"])
print(f"{passed} passed, 0 failed")
