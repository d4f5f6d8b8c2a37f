"""Uses the pictures' part of the page of `pgm-infer serve` in Chromium: chooses classes, draws, paints a mask, refills.

    python page_pictures.py URL SCREENSHOT_DIR

URL is that of a running server, one of whose models draws pictures of named classes. See page.py, whose browser this uses.
"""

import base64
import re
import struct
import sys
import tempfile
import zlib
from pathlib import Path

from playwright.sync_api import Page, expect

from page import PATIENCE, brightness, main, need

# Records the pictures that each tile shows, one after the other.
WATCH_TILES = """
(list) => {
  window.seen = {};
  new MutationObserver((changes) => {
    for (const { target } of changes) {
      const tile = [...document.querySelectorAll(`${list} img`)].indexOf(target);
      if (target.src) (window.seen[tile] ??= []).push(target.src);
    }
  }).observe(document.querySelector(list), { subtree: true, attributes: true, attributeFilter: ["src"] });
}
"""
# The bytes of the pixels of the canvas.
PIXELS = """
() => {
  const canvas = document.getElementById("canvas");
  return [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data];
}
"""
# Drops a file on the page as a person with a mouse would.
DROP = """
([name, text]) => {
  const data = new DataTransfer();
  data.items.add(new File([Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))], name));
  for (const type of ["dragover", "drop"]) {
    document.getElementById("title").dispatchEvent(new DragEvent(type, { dataTransfer: data, bubbles: true, cancelable: true }));
  }
}
"""
EACH = 2
MANY = 1000  # of each of two classes, so many requests that a run can be stopped
STEPS = 8


def png(width: int, height: int, pixel) -> bytes:
    """A PNG of colours; `pixel(x, y)` is red, green and blue."""
    rows = b"".join(b"\0" + b"".join(bytes(pixel(x, y)) for x in range(width)) for y in range(height))
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    framed = [struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def models(page: Page) -> list[dict]:
    return page.request.get(f"{page.base}/v1/models").json()["data"]


def picture_model(page: Page) -> dict:
    found = [model for model in models(page) if model.get("grid")]
    need(found != [], "the server has no model of pictures")
    return found[0]


def wait_for_tiles(page: Page, tiles: str = "#tiles") -> None:
    expect(page.locator(tiles)).to_have_attribute("aria-busy", "false", timeout=PATIENCE)


def choose_the_model(page: Page) -> dict:
    page.wait_for_selector("#model option", state="attached", timeout=PATIENCE)
    model = picture_model(page)
    if len(models(page)) > 1:
        page.select_option("#model", model["id"])
    expect(page.locator("#draw")).to_have_attribute("aria-disabled", "false", timeout=PATIENCE)
    return model


def choose_classes(page: Page, classes: list[int]) -> None:
    page.click("#no-classes")
    for index in classes:
        page.focus(f"#classes input[value='{index}']")
        page.keyboard.press("Space")


def write(page: Page, each: object = EACH, steps: object = STEPS, order: str = "", seed: object = "") -> None:
    for field, value in [("#per-class", each), ("#picture-seed", seed), ("#picture-steps", steps)]:
        page.focus(field)
        page.keyboard.press("Control+A")
        page.keyboard.press("Delete")
        page.keyboard.type(str(value))
    page.select_option("#picture-order", order)


def draw(page: Page, **settings: object) -> list[str]:
    """The pictures' addresses."""
    write(page, **settings)
    page.focus("#picture-steps")
    page.keyboard.press("Control+Enter")
    wait_for_tiles(page)
    error = page.text_content("#draw-error")
    need(not error, f"pictures were not drawn: {error}")
    need(page.text_content("#draw-status") == "Done.", f"the status after drawing is {page.text_content('#draw-status')!r}")
    return page.locator("#tiles img").evaluate_all("images => images.map(({ src }) => src)")


def open_first(page: Page) -> None:
    page.focus("#tiles button >> nth=0")
    page.keyboard.press("Enter")
    expect(page.locator("#stage")).to_be_focused(timeout=PATIENCE)


def mark_cells(page: Page, moves: list[str]) -> None:
    """Goes over cells by keyboard from the upper left one, and marks each."""
    page.focus("#stage")
    for _ in range(64):
        page.keyboard.press("ArrowUp")
        page.keyboard.press("ArrowLeft")
    for move in ["", *moves]:
        if move:
            page.keyboard.press(move)
        page.keyboard.press("Space")


def check_a_model_of_pictures_shows_its_classes(page: Page) -> None:
    model = choose_the_model(page)
    need(page.is_visible("#pictures") and not page.is_visible("#blanks"), "the part for pictures is not shown alone")
    names = page.locator("#classes label").all_text_contents()
    need(names == model["classes"], f"the classes are {names}")
    note = page.text_content("#model-note")
    need(all(f"{side}" in note for side in [*model["size"], *model["grid"]]), f"the model is described as {note!r}")
    need(page.get_attribute("#picture-steps", "placeholder") == str(model["defaults"]["steps"]), "the model's steps are not shown")
    choose_classes(page, [])
    need("no class" in page.text_content("#classes-note"), "it is not said what no class means")
    page.click("#all-classes")
    need(page.locator("#classes :checked").count() == len(names), "All does not choose all classes")
    text = next((each["id"] for each in models(page) if not each.get("grid")), None)
    if text is not None:
        page.select_option("#model", text)
        need(page.is_visible("#blanks") and not page.is_visible("#pictures"), "a model of texts does not bring its part back")
        choose_the_model(page)


def check_pictures_fill_step_by_step(page: Page) -> None:
    model = choose_the_model(page)
    choose_classes(page, [0, 1])
    page.evaluate(WATCH_TILES, "#tiles")
    draw(page)
    seen = page.evaluate("window.seen")
    need(len(seen) == 2 * EACH, f"{len(seen)} pictures were shown for 2 classes with {EACH} each")
    states = [len(set(urls)) for urls in seen.values()]
    need(min(states) >= 3, f"the pictures were seen in {states} states")
    captions = page.locator("#tiles .caption").all_text_contents()
    need(captions == [name for name in model["classes"][:2] for _ in range(EACH)], f"the captions are {captions}")
    need("Edit picture 1" in page.get_attribute("#tiles button >> nth=0", "aria-label"), "a finished picture has no name")
    need(page.evaluate("document.getElementById('draw-bar').value") == 1, "the bar is not full at the end")
    sizes = page.locator("#tiles img").evaluate_all("images => images.map((i) => [i.naturalWidth, i.naturalHeight])")
    need(sizes == [model["size"]] * len(sizes), f"the pictures have {sizes} pixels")


def check_a_seed_gives_its_pictures_again(page: Page) -> None:
    pictures, seed = draw(page), page.text_content("#draw-seed")
    page.click("#draw-again")
    wait_for_tiles(page)
    again = page.locator("#tiles img").evaluate_all("images => images.map(({ src }) => src)")
    need(again == pictures, "again with the same seed gave other pictures")
    need(page.text_content("#draw-seed") == seed, "again with the same seed took another seed")
    need(draw(page) != pictures, "without a seed the same pictures came twice")
    need(draw(page, seed=seed) == pictures, "the seed shown, typed in, gave other pictures")


def check_stopping_ends_a_long_run(page: Page) -> None:
    for stop in [lambda: page.keyboard.press("Escape"), lambda: page.click("#draw-stop")]:
        write(page, each=MANY, steps=200)
        page.focus("#picture-steps")
        page.keyboard.press("Control+Enter")
        expect(page.locator("#draw-progress")).to_contain_text(f"of {2 * MANY} pictures", timeout=PATIENCE)
        stop()
        expect(page.locator("#tiles")).to_have_attribute("aria-busy", "false", timeout=5000)
        status = page.text_content("#draw-status")
        need(re.match(r"Stopped after \d+ finished", status) is not None, f"the status after stopping is {status!r}")
        before = page.locator("#tiles img[src]").count()
        page.wait_for_timeout(300)
        need(page.locator("#tiles img[src]").count() == before < 2 * MANY, "pictures went on coming after the stop")
    draw(page)  # the server has places again


def check_what_the_server_refuses_is_said_beside_its_field(page: Page) -> None:
    before = draw(page)
    for field, value, word in [("picture-temperature", "2.5", "emperature"), ("picture-steps", "99999999", "teps")]:
        write(page)
        page.fill(f"#{field}", value)
        page.keyboard.press("Control+Enter")
        said = page.locator(f"#{field} + .error")
        expect(said).to_contain_text(word, timeout=PATIENCE)
        need(said.get_attribute("role") == "alert", "errors are not announced")
        need(page.get_attribute(f"#{field}", "aria-invalid") == "true", "the field is not marked")
        need(said.get_attribute("id") in page.get_attribute(f"#{field}", "aria-describedby"), "the field does not tell of its error")
        kept = page.locator("#tiles img").evaluate_all("images => images.map(({ src }) => src)")
        need(kept == before, "a refusal took the pictures away")
        page.fill(f"#{field}", "")
    draw(page)
    need(page.locator(".error.placed").count() == 0, "the error is still there after a run without one")


def check_a_part_is_drawn_again_by_keyboard(page: Page) -> None:
    model = choose_the_model(page)
    (width, height), (rows, columns) = model["size"], model["grid"]
    choose_classes(page, [1])
    draw(page, each=1)
    open_first(page)
    whole = page.evaluate(PIXELS)
    mark_cells(page, ["ArrowRight"])
    need(page.text_content("#stage-status") == "Row 1, column 2: marked", f"it says {page.text_content('#stage-status')!r}")
    page.fill("#refill-n", "3")
    page.keyboard.press("Control+Enter")
    wait_for_tiles(page, "#refills")
    error = page.text_content("#refill-error")
    need(not error, f"the part was not drawn again: {error}")
    need(page.locator("#refills li").count() == 3, "there are not three results")
    results = page.locator("#refills img").evaluate_all("images => images.map(({ src }) => src)")
    page.focus("#refills button >> nth=1")
    page.keyboard.press("Enter")
    expect(page.locator("#refills li >> nth=1")).to_have_attribute("aria-current", "true", timeout=PATIENCE)
    page.click("#clear-mask")
    edited = page.evaluate(PIXELS)
    # What is far from the marked cells, beyond the soft edge, is as it was.
    far = [4 * (y * width + x) for y in range(height) for x in range(width)
           if y * rows // height >= rows // 2 + 1 or x * columns // width >= columns // 2 + 3]
    need(far and all(whole[i:i + 4] == edited[i:i + 4] for i in far), "pixels far from the marks have changed")
    need(len(set(results)) > 1 or edited != whole, "all results are the picture before")
    for _ in range(2):  # the cleared marks, the result
        page.click("#undo")
        page.wait_for_timeout(100)
    page.click("#clear-mask")
    need(page.evaluate(PIXELS) == whole, "undo does not bring the picture before back")


def check_another_picture_ends_the_refills_of_the_one_before(page: Page) -> None:
    """The server does not answer, so that the next picture is opened while the run waits."""
    choose_the_model(page)
    choose_classes(page, [1, 2])
    draw(page, each=1)
    page.route("**/v1/images/edits", lambda route: None)
    open_first(page)
    need(page.input_value("#refill-class") == "1", "the class of the picture is not chosen")
    mark_cells(page, ["ArrowRight"])
    page.keyboard.press("Control+Enter")
    expect(page.locator("#refill-status")).to_have_text("Waiting for the server…", timeout=PATIENCE)
    page.focus("#tiles button >> nth=1")
    page.keyboard.press("Enter")
    expect(page.locator("#refill")).to_have_attribute("aria-disabled", "false", timeout=PATIENCE)
    need(page.locator("#refills li").count() == 0, "results of the picture before are shown under this one")
    need(page.text_content("#refill-status") == "", f"it says {page.text_content('#refill-status')!r}")
    need(page.input_value("#refill-class") == "2", "the class is not that of this picture")
    page.click("#undo")
    page.wait_for_timeout(100)
    need(page.input_value("#refill-class") == "1", "undo brings a picture back without its class")
    page.unroute("**/v1/images/edits")


def check_nothing_marked_is_said(page: Page) -> None:
    open_first(page)
    page.click("#refill")
    expect(page.locator("#refill-error")).to_contain_text("Nothing is marked", timeout=PATIENCE)


def check_a_mask_is_painted_by_pointer(page: Page) -> None:
    model = choose_the_model(page)
    open_first(page)
    page.locator("#brush-size").fill("1")
    box = page.locator("#canvas").bounding_box()

    def stroke() -> str:
        page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.5)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.7, box["y"] + box["height"] * 0.5, steps=3)
        page.mouse.up()
        return page.text_content("#stage-status")

    page.locator("#stage").scroll_into_view_if_needed()
    box = page.locator("#canvas").bounding_box()
    found = re.match(r"(\d+) of (\d+) cells? marked", stroke())
    need(found is not None, f"after a stroke it says {page.text_content('#stage-status')!r}")
    marked, cells = map(int, found.groups())
    need(cells == model["grid"][0] * model["grid"][1] and 1 < marked < cells, f"{marked} of {cells} cells are marked")
    faint = sum(alpha < 255 for alpha in page.evaluate(PIXELS)[3::4])
    need(faint >= marked, "marks cannot be seen")
    page.check("input[value=keep]")
    need(stroke() == "Nothing is marked yet.", "the eraser leaves marks")
    page.check("input[value=mark]")
    stroke()
    page.click("#undo")
    page.wait_for_timeout(100)
    need(not any(alpha < 255 for alpha in page.evaluate(PIXELS)[3::4]), "undo leaves the stroke")


def check_an_own_picture_is_scaled_to_the_model(page: Page) -> None:
    model = choose_the_model(page)
    (width, height), grey = model["size"], model["channels"] == 1
    # Twice as wide as the model's; its middle is red above and blue below.
    inside = lambda x: width * 2 <= x < width * 6
    red, blue, black = (200, 0, 0), (0, 0, 200), (0, 0, 0)
    wide = png(width * 8, height * 4, lambda x, y: black if not inside(x) else red if y < height * 2 else blue)
    with tempfile.TemporaryDirectory() as folder:
        for name, content in [("wide.png", wide), ("text.png", b"no picture")]:
            Path(folder, name).write_bytes(content)
        page.set_input_files("#own-picture", Path(folder, "wide.png"))
        expect(page.locator("#refill-status")).to_contain_text("wide.png is open", timeout=PATIENCE)
        pixels = page.evaluate(PIXELS)
        need(len(pixels) == 4 * width * height, "the picture does not have the model's size")
        corners = [pixels[4 * i:4 * i + 3] for i in (0, width - 1, width * (height - 1), width * height - 1)]
        shade = lambda colour: [round(sum(a * b for a, b in zip(colour, (0.299, 0.587, 0.114), strict=True)))] * 3
        wanted = [shade(colour) if grey else list(colour) for colour in (red, red, blue, blue)]
        need(all(abs(a - b) <= 2 for one, two in zip(corners, wanted, strict=True) for a, b in zip(one, two, strict=True)),
             f"the corners are {corners}, not {wanted}")
        page.set_input_files("#own-picture", Path(folder, "text.png"))
        expect(page.locator("#edit-error")).to_contain_text("text.png is no picture", timeout=PATIENCE)
        need(page.evaluate(PIXELS) == pixels, "a file that is no picture took the picture away")
    page.evaluate(DROP, ["dropped.png", base64.b64encode(wide).decode()])
    expect(page.locator("#refill-status")).to_contain_text("dropped.png is open", timeout=PATIENCE)
    need(page.text_content("#edit-error") == "", "the earlier error is still there")


def check_everything_is_kept_over_a_reload(page: Page) -> None:
    choose_the_model(page)
    choose_classes(page, [1])
    pictures = draw(page, each=3, order="uniform")
    open_first(page)
    mark_cells(page, [])
    before = page.evaluate(PIXELS)
    page.reload()
    expect(page.locator("#draw")).to_have_attribute("aria-disabled", "false", timeout=PATIENCE)
    expect(page.locator("#refill-form")).to_be_visible(timeout=PATIENCE)
    need(page.is_visible("#pictures"), "after a reload the page shows another part")
    values = [page.input_value(field) for field in ("#per-class", "#picture-steps", "#picture-order")]
    need(values == ["3", str(STEPS), "uniform"], f"after a reload the settings are {values}")
    chosen = page.locator("#classes :checked").evaluate_all("boxes => boxes.map(({ value }) => value)")
    need(chosen == ["1"], f"after a reload the classes are {chosen}")
    need(page.evaluate(PIXELS) == before, "the picture and its marks were lost with a reload")
    page.locator("#past button").first.click()
    again = page.locator("#tiles img").evaluate_all("images => images.map(({ src }) => src)")
    need(again == pictures, "the earlier pictures did not come back")


def check_pictures_are_saved(page: Page) -> None:
    model = choose_the_model(page)
    pictures = draw(page, each=1)
    with page.expect_download() as saved:
        page.locator("#tiles a").first.click()
    name, content = saved.value.suggested_filename, Path(saved.value.path()).read_bytes()
    need(model["id"] in name and page.text_content("#draw-seed") in name and name.endswith(".png"), f"the file is called {name}")
    need(content == base64.b64decode(pictures[0].split(",")[1]), "the file is not the picture")
    open_first(page)
    with page.expect_download() as saved:
        page.click("#save")
    need(Path(saved.value.path()).read_bytes()[:4] == b"\x89PNG", "the edited picture is no PNG")


def check_counts_are_explained(page: Page) -> None:
    draw(page)
    progress = page.text_content("#draw-progress")
    need(re.search(rf"\d+ pictures? · {STEPS} steps · [\d.e+]+ pictures/s", progress) is not None, f"the counts are {progress!r}")
    page.click("#picture-counts summary")
    explained = page.text_content("#picture-counts p")
    need(all(word in explained for word in ["cell", "step", "evaluation", "guidance"]), f"the counts are explained as {explained!r}")


def show_an_edit(page: Page, shot: str) -> None:
    model = choose_the_model(page)
    choose_classes(page, list(range(min(10, len(model["classes"])))))
    draw(page)
    open_first(page)
    mark_cells(page, ["ArrowRight"])
    page.fill("#refill-n", "4")
    page.click("#refill")
    wait_for_tiles(page, "#refills")
    page.screenshot(path=page.shots / f"pictures-{shot}.png", full_page=True)


def check_light(page: Page) -> None:
    show_an_edit(page, "light")
    need(brightness(page) > 600, "the light page is not light")


def check_dark(page: Page) -> None:
    show_an_edit(page, "dark")
    need(brightness(page) < 165, "the dark page is not dark")


def check_small(page: Page) -> None:
    show_an_edit(page, "small")
    width = page.evaluate("document.documentElement.scrollWidth")
    need(width <= 360, f"a screen of 360 pixels has to scroll over {width}")


if __name__ == "__main__":
    ordinary = [
        check_a_model_of_pictures_shows_its_classes,
        check_pictures_fill_step_by_step,
        check_a_seed_gives_its_pictures_again,
        check_stopping_ends_a_long_run,
        check_what_the_server_refuses_is_said_beside_its_field,
        check_a_part_is_drawn_again_by_keyboard,
        check_another_picture_ends_the_refills_of_the_one_before,
        check_nothing_marked_is_said,
        check_a_mask_is_painted_by_pointer,
        check_an_own_picture_is_scaled_to_the_model,
        check_everything_is_kept_over_a_reload,
        check_pictures_are_saved,
        check_counts_are_explained,
        check_light,
    ]
    sys.exit(main([("light", 1100, 850, ordinary), ("dark", 1100, 850, [check_dark]), ("light", 360, 740, [check_small])]))
