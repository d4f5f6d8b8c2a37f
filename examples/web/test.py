"""Uses the page without a server in Chromium, as a person would, and compares its tokens with those of `pgm-infer generate`.

    python test.py OUT PGM_INFER MODEL SCREENSHOT_DIR

OUT is what build.sh makes of the model folder MODEL. The script needs the packages of pgm-infer/tests/peers/requirements.txt and
/usr/bin/chromium. The files are offered by Python's own web server, without special headers, under a path with a prefix. The
checks of the server's page that need no server are run as well: it is the same page.
"""

import contextlib
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from playwright.sync_api import Page, expect

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "pgm-infer" / "tests" / "peers"))
import page as peers  # noqa: E402
from page import PATIENCE, fill, need, wait_until_ready  # noqa: E402

PREFIX = "some/where"
WEIGHTS = "model.safetensors"
SOFTWARE_WEBGPU = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan"]
# Templates with what else is asked for; the seed of each is its number.
CASES = [
    ("The {6} cat {6}.", {"steps": 12}),
    ("To be, or {12} to be", {"steps": 5}),
    ("{*}", {"steps": 32}),
    ("é{5}日{7}", {"steps": 128, "temperature": 0.7}),
    ("One {9}, two ___", {"steps": 9, "top_p": 0.9}),
    ("One {9}, two ___", {"steps": 9, "top_k": 5, "order": "confidence"}),
    ("A {20}.", {"steps": 10, "order": "entropy-bounded"}),
    ("A {20}.", {"steps": 30, "order": "remask"}),
    ("A {20}.", {"steps": 10, "order": "low-discrepancy"}),
    ("A text that goes on", {"steps": 40}),
]
FLAGS = {"temperature": "--temp", "top_p": "--top-p", "top_k": "--top-k", "order": "--order", "steps": "--steps"}

# The answer to a request of the page's own backend, which the page does not show in full.
ANSWER = """
async ([model, body]) => {
  const app = document.querySelector("script[type=module]").src;
  const { post } = await import(app.replace("app.js", "backend.js"));
  let last = null;
  for await (const { data } of post("infill", { model, ...body }, new AbortController().signal)) last = data;
  return last;
}
"""
# Drops some files of the bundled model on the page.
DROP = """
async (names) => {
  const dropped = new DataTransfer();
  for (const name of names) dropped.items.add(new File([await (await fetch(`model/${name}`)).blob()], name));
  document.dispatchEvent(new DragEvent("drop", { dataTransfer: dropped, bubbles: true, cancelable: true }));
}
"""
CACHES = "async () => { const all = await caches.keys(); return all.length; }"


class Site(SimpleHTTPRequestHandler):
    """Files, and a list of what was asked for."""

    asked: list[str] = []
    slow = False  # sends 20 kB a time, with a pause behind each

    def do_GET(self) -> None:
        Site.asked.append(self.path)
        super().do_GET()

    def copyfile(self, source: object, outputfile: object) -> None:
        while Site.slow and self.path.endswith(WEIGHTS) and (part := source.read(20_000)):
            with contextlib.suppress(ConnectionError):
                outputfile.write(part)
            time.sleep(0.2)
        with contextlib.suppress(ConnectionError):  # the page may stop loading
            super().copyfile(source, outputfile)

    def log_message(self, *_: object) -> None:
        pass


def n_downloads() -> int:
    return sum(path.endswith(WEIGHTS) for path in Site.asked)


def native(model: Path, template: str, asked: dict, seed: int, threads: int | None = None) -> dict:
    """What `pgm-infer generate` gives. A text without a blank is continued, which the page asks for with {*}."""
    flags = [part for name, value in asked.items() for part in (FLAGS[name], str(value))]
    command = [binary, "generate", "--model", str(model), "--template", template, "--seed", str(seed), "--json", "--device", "flex"]
    env = {**os.environ, **({"RAYON_NUM_THREADS": str(threads)} if threads else {})}
    return json.loads(subprocess.run([*command, *flags], env=env, capture_output=True, text=True, check=True).stdout)


def with_blank(template: str) -> str:
    return template if "{" in template else template + "{*}"


def answer(page: Page, template: str, asked: dict, seed: int, model: str = "demo") -> dict:
    return page.evaluate(ANSWER, [model, {"template": template, "blank": 8, "seed": seed, **asked}])


def says(page: Page, selector: str, text: str) -> None:
    expect(page.locator(selector)).to_contain_text(text, timeout=PATIENCE)


def check_the_bundled_model_is_loaded_and_stored(page: Page) -> None:
    wait_until_ready(page)
    says(page, "#load-status", "demo is loaded.")
    need(page.evaluate(CACHES) == 1, "the model is not stored")
    need(page.locator("#remove").is_visible(), "the stored model cannot be removed")
    need(page.locator("#load").is_hidden(), "a model that is loaded is offered for loading")
    need(n_downloads() == 1, f"the weights were downloaded {n_downloads()} times")


def check_tokens_are_the_native_ones(page: Page) -> None:
    for seed, (template, asked) in enumerate(CASES):
        here, there = answer(page, with_blank(template), asked, seed), native(bundled, with_blank(template), asked, seed)
        case = f"{template!r} with {asked} and seed {seed}"
        need(here["tokens"] == there["tokens"], f"{case}: the tokens are {here['tokens']}, native ones {there['tokens']}")
        need(here["order"] == there["order"], f"{case}: the order is {here['order']}, the native one {there['order']}")
        need(here["text"] == there["text"], f"{case}: the text is {here['text']!r}, the native one {there['text']!r}")
        pairs = zip(here["log_probabilities"], there["log_probabilities"], strict=True)
        largest = max(abs(a - b) for a, b in pairs)
        need(largest < 1e-3, f"{case}: a log-probability differs by {largest}")


def check_the_page_shows_the_native_text(page: Page) -> None:
    text = fill(page, seed=7)
    expected = native(bundled, peers.TEXT, {"steps": peers.STEPS}, 7)["text"]
    need(text == expected, f"the page shows {text!r}, natively it is {expected!r}")


def check_a_wrong_request_is_explained(page: Page) -> None:
    peers.write(page, "x{99999999}")
    page.keyboard.press("Control+Enter")
    says(page, "#error", "The text and its blanks need")
    said = page.text_content("#error")
    need("shorten the text" in said and "--" not in said, f"the page says {said!r}")
    peers.write(page, "x{3}", steps=5000)
    page.keyboard.press("Control+Enter")
    says(page, "#error", "Steps must lie between 1 and 4096.")
    fill(page)


def check_the_stored_model_is_used_after_a_reload(page: Page) -> None:
    before = n_downloads()
    page.reload()
    wait_until_ready(page)
    need(n_downloads() == before, "the stored model was downloaded again")
    fill(page)


def check_the_stored_model_can_be_removed(page: Page) -> None:
    page.click("#remove")
    says(page, "#load-status", "The stored model is removed.")
    need(page.evaluate(CACHES) == 0, "the model is still stored")
    fill(page)  # it is still in memory
    before = n_downloads()
    page.reload()
    says(page, "#load", "Download demo (")
    page.wait_for_timeout(500)
    need(n_downloads() == before, "a model that was removed came back unasked")
    page.click("#load")
    wait_until_ready(page)
    need(n_downloads() == before + 1 and page.evaluate(CACHES) == 1, "the model was not downloaded and stored again")
    fill(page)


def check_a_cut_download_is_said_and_can_be_repeated(page: Page) -> None:
    page.click("#remove")
    says(page, "#load-status", "The stored model is removed.")
    weights = site / "model" / WEIGHTS
    whole = weights.read_bytes()
    try:
        weights.write_bytes(whole[:-100])
        page.reload()
        page.click("#load")
        says(page, "#load-error", f"{WEIGHTS} has {len(whole) - 100} bytes in place of {len(whole)}")
        weights.unlink()
        page.click("#load")
        says(page, "#load-error", "the site answers with status 404")
    finally:
        weights.write_bytes(whole)
    page.click("#load")
    wait_until_ready(page)
    need(page.text_content("#load-error") == "", "the error stays after the model is loaded")
    fill(page)


def check_loading_can_be_stopped(page: Page) -> None:
    page.click("#remove")
    says(page, "#load-status", "The stored model is removed.")
    page.reload()
    Site.slow = True
    try:
        page.click("#load")
        expect(page.locator("#load-status")).to_contain_text(re.compile("Loading 0.[1-4] MB of 0.6 MB"), timeout=PATIENCE)
        page.click("#stop-load")
        says(page, "#load-status", "Stopped.")
    finally:
        Site.slow = False
    need(page.locator("#model option").count() == 0, "a model whose loading was stopped is offered")
    page.click("#load")
    wait_until_ready(page)
    fill(page)


def folder(name: str) -> Path:
    at = scratch / name
    shutil.copytree(bundled, at)
    return at


def open_folder(page: Page, at: Path) -> None:
    page.set_input_files("#folder", str(at))


def check_a_broken_folder_is_explained(page: Page) -> None:
    def without_tokenizer(at: Path) -> None:
        (at / "tokenizer.json").unlink()

    def cut_weights(at: Path) -> None:
        (at / WEIGHTS).write_bytes((at / WEIGHTS).read_bytes()[:-100])

    def no_json(at: Path) -> None:
        (at / "config.json").write_text("no JSON")

    def other_size(at: Path) -> None:
        config = json.loads((at / "config.json").read_text())
        config["backbone"]["hidden_size"] *= 2
        (at / "config.json").write_text(json.dumps(config))

    def foreign_tokenizer(at: Path) -> None:
        tokenizer = json.loads((at / "tokenizer.json").read_text())
        tokenizer["model"]["vocab"]["zz"] = 999
        (at / "tokenizer.json").write_text(json.dumps(tokenizer))

    for change, said in [
        (without_tokenizer, "without_tokenizer: there is no tokenizer.json. A model folder has config.json, model.safetensors"),
        (cut_weights, "model.safetensors is not a readable safetensors file"),
        (no_json, "config.json is not a valid model configuration"),
        (other_size, "tensor vocab_embed.embedding has shape [258, 64], the configuration asks for [258, 128]"),
        (foreign_tokenizer, "it is the tokenizer of another model"),
    ]:
        at = folder(change.__name__)
        change(at)
        open_folder(page, at)
        says(page, "#load-error", said)
        need(page.locator("#model option").count() == 1, "a broken model is offered")
        fill(page)  # the other model is still there


def bf16(at: Path) -> None:
    """Rewrites the weights in bfloat16, rounding as truncation does: both sides read the same file."""
    data = (at / WEIGHTS).read_bytes()
    (n,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + n]), data[8 + n :]
    out, parts = 0, []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        code = {"F16": "e", "F32": "f"}[entry["dtype"]]
        values = struct.unpack(f"<{(end - begin) // struct.calcsize(code)}{code}", body[begin:end])
        parts.append(b"".join(struct.pack("<f", value)[2:] for value in values))
        entry.update(dtype="BF16", data_offsets=[out, out + len(parts[-1])])
        out += len(parts[-1])
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (at / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text + b"".join(parts))


def check_a_folder_is_opened_beside_the_bundled_model(page: Page) -> None:
    at = folder("mine")
    bf16(at)
    (at / "generation_config.json").write_text('{"steps": 3}')
    open_folder(page, at)
    says(page, "#load-status", "mine is loaded.")
    names = page.locator("#model option").all_text_contents()
    need(names == ["demo", "mine"] and page.input_value("#model") == "mine", f"the models are {names}")
    need(page.get_attribute("#steps", "placeholder") == "3", "the folder's own number of steps is not shown")
    here, there = answer(page, "To be {12}.", {}, 5, "mine"), native(at, "To be {12}.", {}, 5)
    need(here["tokens"] == there["tokens"], f"weights in bfloat16: {here['tokens']}, natively {there['tokens']}")
    page.select_option("#model", "demo")
    fill(page)


def check_dropped_files_are_opened(page: Page) -> None:
    page.evaluate(DROP, ["config.json", WEIGHTS])
    says(page, "#load-error", "dropped files: there is no tokenizer.json.")
    page.evaluate(DROP, ["config.json", WEIGHTS, "tokenizer.json"])
    says(page, "#load-status", "dropped files is loaded.")
    names = page.locator("#model option").all_text_contents()
    need(names == ["demo", "dropped files"], f"the models are {names}")
    fill(page)


def check_a_failed_model_is_loaded_again(page: Page) -> None:
    """A program that traps, as for want of memory, takes its models with it; the next text loads them again."""
    faulty = site.parent / "faulty"
    shutil.copytree(site, faulty)
    worker = (faulty / "worker.js").read_text()
    call = "const json = await model.infill("
    need(worker.count(call) == 1, f"worker.js has no {call!r}")
    # As a trap within a future of Rust's: in a microtask, and without an end of the promise.
    trap = "queueMicrotask(() => { throw new WebAssembly.RuntimeError('unreachable'); })"
    fault = f"if (await self.caches.delete('fault')) await new Promise(() => {trap});"
    (faulty / "worker.js").write_text(worker.replace(call, f"{fault} {call}"))
    page.goto(page.base.replace(PREFIX, str(Path(PREFIX).parent / "faulty")))
    wait_until_ready(page)
    page.evaluate("async () => { await caches.open('fault'); }")
    peers.write(page, peers.TEXT)
    page.keyboard.press("Control+Enter")
    says(page, "#error", "The model failed: perhaps it needs more memory")
    fill(page)
    page.goto(page.base)


def check_the_speed(page: Page) -> None:
    steps = {"steps": 4096}  # one token at a time
    here = sorted(answer(page, "{*}", steps, seed)["timings"]["predicted_per_second"] for seed in range(5))[2]
    runs = [native(bundled, "{*}", steps, seed, threads=1) for seed in range(3)]
    there = sorted(len(run["order"]) / run["seconds"] for run in runs)[1]
    tokens = len(runs[0]["order"])
    print(f"{tokens} tokens, one at a time: {here:.0f} tokens/s in the page, {there:.0f} natively with one thread")
    need(here >= 10, f"{here:.1f} tokens/s are too few")


def check_webgpu_gives_the_native_tokens(page: Page) -> None:
    """On Chromium's software adapter, which is no measure of a graphics card's speed."""
    wait_until_ready(page)
    says(page, "#device-field", "the graphics card")
    page.select_option("#device", "webgpu")
    expect(page.locator("#device")).to_be_enabled(timeout=PATIENCE)
    need(page.text_content("#load-error") == "", f"WebGPU: {page.text_content('#load-error')}")
    need(page.input_value("#device") == "webgpu", "the page went back to the processor")
    for seed, (template, asked) in enumerate(CASES):
        here, there = answer(page, with_blank(template), asked, seed), native(bundled, with_blank(template), asked, seed)
        case = f"WebGPU: {template!r} with {asked} and seed {seed}"
        need(here["tokens"] == there["tokens"], f"{case}: the tokens are {here['tokens']}, native ones {there['tokens']}")
    speed = answer(page, "{*}", {"steps": 16}, 1)["timings"]["predicted_per_second"]
    print(f"WebGPU on the software adapter: {speed:.1f} tokens/s at 16 steps")
    page.reload()
    wait_until_ready(page)
    need(page.input_value("#device") == "webgpu", "the choice of the graphics card was forgotten")
    fill(page)
    page.select_option("#device", "flex")
    expect(page.locator("#device")).to_be_enabled(timeout=PATIENCE)
    fill(page)


def check_light(page: Page) -> None:
    page.reload()
    wait_until_ready(page)
    fill(page)
    page.screenshot(path=page.shots / "web-light.png", full_page=True)


def check_small(page: Page) -> None:
    wait_until_ready(page)
    fill(page, text="w" * 60 + "{6}")
    width = page.evaluate("document.documentElement.scrollWidth")
    need(width <= 360, f"a screen of 360 pixels has to scroll over {width}")
    page.screenshot(path=page.shots / "web-small.png", full_page=True)


ORDINARY = [
    check_the_bundled_model_is_loaded_and_stored,
    check_tokens_are_the_native_ones,
    check_the_page_shows_the_native_text,
    peers.check_the_models_are_listed,
    peers.check_a_text_fills_step_by_step,
    peers.check_a_seed_gives_its_text_again,
    peers.check_stopping_ends_a_long_run,
    peers.check_a_text_without_blanks_is_continued,
    peers.check_an_earlier_result_comes_back,
    peers.check_the_text_is_kept_over_a_reload,
    peers.check_counts_are_explained,
    check_a_wrong_request_is_explained,
    check_the_stored_model_is_used_after_a_reload,
    check_the_stored_model_can_be_removed,
    check_a_cut_download_is_said_and_can_be_repeated,
    check_loading_can_be_stopped,
    check_a_broken_folder_is_explained,
    check_a_folder_is_opened_beside_the_bundled_model,
    check_dropped_files_are_opened,
    check_a_failed_model_is_loaded_again,
    check_webgpu_gives_the_native_tokens,
    check_light,
    check_the_speed,
]
SCREENS = [("light", 1100, 850, ORDINARY), ("light", 360, 740, [check_small])]


def main() -> int:
    global binary, bundled, site, scratch
    script = Path(sys.argv[0]).name
    if len(sys.argv) != 5:
        print(f"{script}: python {script} OUT PGM_INFER MODEL SCREENSHOT_DIR", file=sys.stderr)
        return 2
    out, binary, bundled, shots = sys.argv[1:]
    bundled = Path(bundled).resolve()
    scratch = Path(tempfile.mkdtemp())
    try:
        site = scratch / "site" / PREFIX
        shutil.copytree(out, site)
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Site, directory=str(scratch / "site")))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        peers.FLAGS.remove("--disable-gpu")
        peers.FLAGS.extend(SOFTWARE_WEBGPU)
        sys.argv[1:] = [f"http://127.0.0.1:{server.server_port}/{PREFIX}/", shots]
        return peers.main(SCREENS)
    finally:
        shutil.rmtree(scratch)


if __name__ == "__main__":
    sys.exit(main())
