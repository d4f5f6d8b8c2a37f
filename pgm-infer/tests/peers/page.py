"""Uses the page of `pgm-infer serve` in Chromium, as a person with a keyboard would.

    python page.py URL SCREENSHOT_DIR

URL is that of a running server whose first model fills blanks. The script needs playwright (PyPI) and /usr/bin/chromium. An
observer in the page records the changes of the result: a small model is done before a screenshot could be taken.
"""

import re
import sys
from pathlib import Path

from playwright.sync_api import Error, Page, expect, sync_playwright

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
TEXT = "The {6} cat {6}."
GIVEN = ["The ", " cat ", "."]
STEPS = 12  # one for each token of the blanks
ENDLESS = 4000  # steps of remask, each an evaluation; the server takes 4096 at most unless told otherwise
PATIENCE = 60_000  # ms

# Records violations of the content security policy, from before the page's script runs.
WATCH_POLICY = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) =>
  window.violations.push(`${event.violatedDirective} ${event.blockedURI}`));
"""
# Records the number of open tokens after each change of the result.
WATCH_RESULT = """
() => {
  window.openCounts = [];
  const result = document.getElementById("result");
  new MutationObserver(() => window.openCounts.push(result.querySelectorAll(".cell").length))
    .observe(result, { childList: true });
}
"""


class Wrong(Exception):
    """A failed expectation, as a sentence."""


def need(holds: bool, sentence: str) -> None:
    if not holds:
        raise Wrong(sentence)


def wait_until_ready(page: Page) -> None:
    page.wait_for_selector("#model option", state="attached", timeout=PATIENCE)
    expect(page.locator("#generate")).to_have_attribute("aria-disabled", "false", timeout=PATIENCE)


def wait_until_done(page: Page) -> str:
    """The finished text."""
    # Waiting for a function would need `eval`, which the server's policy forbids.
    expect(page.locator("#result")).to_have_attribute("aria-busy", "false", timeout=PATIENCE)
    error = page.text_content("#error")
    need(not error, f"a text was not filled: {error}")
    status = page.text_content("#status")
    need(status == "Done.", f"the status after filling is {status!r}")
    return page.text_content("#result")


def write(page: Page, text: str, steps: object = STEPS, order: str = "uniform", seed: object = "") -> None:
    """Types text and settings by keyboard (the order is selected); the focus ends in the text."""
    for field, value in [("#steps", steps), ("#seed", seed), ("#text", text)]:
        page.focus(field)
        page.keyboard.press("Control+A")
        page.keyboard.press("Delete")
        page.keyboard.type(str(value))
        if field == "#steps":
            page.select_option("#order", order)


def fill(page: Page, text: str = TEXT, **settings: object) -> str:
    write(page, text, **settings)
    page.keyboard.press("Control+Enter")
    return wait_until_done(page)


def check_the_models_are_listed(page: Page) -> None:
    wait_until_ready(page)
    models = page.locator("#model option").count()
    need(page.locator("#model-field").is_visible() == (models > 1), "the models' field is for a choice among several")
    need(page.text_content("#model-note") != "", "nothing is said about the model")
    need(page.get_attribute("#steps", "placeholder") != "", "the model's own number of steps is not shown")


def check_a_text_fills_step_by_step(page: Page) -> None:
    page.evaluate(WATCH_RESULT)
    text = fill(page)
    counts = page.evaluate("window.openCounts")
    states = {n for n in counts if n > 0}
    need(len(states) >= 2, f"filling was seen in {len(states)} states before its end")
    need(max(counts) <= STEPS and counts[-1] == 0, f"the open tokens were {counts}")
    need(counts == sorted(counts, reverse=True), f"a uniform order opened tokens again: {counts}")
    given = page.locator("#result .given").all_text_contents()
    need(given == GIVEN, f"the given parts became {given}")
    need(text.startswith(GIVEN[0]) and GIVEN[1] in text and text.endswith(GIVEN[2]), f"the finished text is {text!r}")
    need(page.locator("#result .made").count() > 0, "nothing is marked as generated")


def check_a_seed_gives_its_text_again(page: Page) -> None:
    text, seed = fill(page), page.text_content("#seed-used")
    page.click("#again")
    need(wait_until_done(page) == text, "again with the same seed gave another text")
    need(page.text_content("#seed-used") == seed, "again with the same seed took another seed")
    fill(page)
    need(page.text_content("#seed-used") != seed, "without a seed the same one was taken twice")
    need(fill(page, seed=seed) == text, "the seed shown, typed in, gave another text")


def check_stopping_ends_a_long_run(page: Page) -> None:
    for stop in [lambda: page.keyboard.press("Escape"), lambda: page.click("#stop")]:
        write(page, "{*}", steps=ENDLESS, order="remask")
        page.keyboard.press("Control+Enter")
        expect(page.locator("#progress")).to_contain_text(re.compile("Step [1-9]"), timeout=PATIENCE)
        stop()
        expect(page.locator("#result")).to_have_attribute("aria-busy", "false", timeout=5000)
        status = page.text_content("#status")
        need(status.startswith("Stopped at step"), f"the status after stopping is {status!r}")
        before = page.text_content("#result")
        page.wait_for_timeout(300)
        need(page.text_content("#result") == before, "the text went on changing after it was stopped")
    fill(page)  # the server has a seat again


def check_a_text_without_blanks_is_continued(page: Page) -> None:
    need(fill(page, text="The cat").startswith("The cat"), "the text was not continued")
    need(page.locator("#result .made").count() > 0, "nothing was added")


def check_what_the_server_refuses_is_said(page: Page) -> None:
    write(page, "A blank {0} of nothing.")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#error")).to_contain_text("{0}", timeout=PATIENCE)
    need(page.get_attribute("#error", "role") == "alert", "errors are not announced")
    fill(page)


def check_an_earlier_result_comes_back(page: Page) -> None:
    text, seed = fill(page), page.text_content("#seed-used")
    fill(page, text="Another {3}.")
    page.locator("#history button").nth(1).click()
    need(page.text_content("#result") == text, "the earlier text did not come back")
    need(page.text_content("#seed-used") == seed, "the earlier seed did not come back")
    need(page.input_value("#text") == TEXT, "the earlier template did not come back")


def check_the_text_is_kept_over_a_reload(page: Page) -> None:
    for text in ["Typed, with {3} in it.", ""]:
        write(page, text, steps=7)
        page.reload()
        wait_until_ready(page)
        need(page.input_value("#text") == text, f"after a reload the text is {page.input_value('#text')!r}, not {text!r}")
        need(page.input_value("#steps") == "7", "the settings were lost with a reload")
    page.locator("#examples button").first.click()
    example = page.input_value("#text")
    page.reload()
    wait_until_ready(page)
    need(page.input_value("#text") == example, "an example was lost with a reload")


def check_errors_name_no_field_that_the_page_lacks(page: Page) -> None:
    for text in ["w" * 5000 + "{6}", "a {99999999} b"]:
        page.fill("#text", text)
        page.keyboard.press("Control+Enter")
        expect(page.locator("#error")).not_to_be_empty(timeout=PATIENCE)
        said = page.text_content("#error")
        need(re.search(r"\b(length|template|top_[kp]|max_tokens)\b", said) is None, f"the page has no such field: {said}")
    fill(page)


def check_counts_are_explained(page: Page) -> None:
    fill(page, steps=64)
    progress = page.text_content("#progress")
    found = re.search(r"(\d+) steps? · (\d+) evaluations? · (\d+) tokens?", progress)
    need(found is not None, f"the counts are {progress!r}")
    steps, evaluations, tokens = map(int, found.groups())
    need(steps <= 64 and 1 <= evaluations <= tokens, f"12 tokens take at most 12 evaluations: {progress!r}")
    page.click("#counts summary")
    explained = page.text_content("#counts p")
    need(all(word in explained for word in ["token", "step", "evaluation"]), f"the counts are explained as {explained!r}")


def brightness(page: Page) -> int:
    """The sum of the background's red, green and blue."""
    return page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3)"
                         ".reduce((sum, part) => sum + Number(part), 0)")


def check_light(page: Page) -> None:
    fill(page)
    need(brightness(page) > 600, "the light page is not light")
    page.screenshot(path=page.shots / "page-light.png", full_page=True)


def check_dark(page: Page) -> None:
    wait_until_ready(page)
    fill(page)
    need(brightness(page) < 165, "the dark page is not dark")
    page.screenshot(path=page.shots / "page-dark.png", full_page=True)


def check_small(page: Page) -> None:
    wait_until_ready(page)
    fill(page, text="w" * 60 + "{6}")
    width = page.evaluate("document.documentElement.scrollWidth")
    need(width <= 360, f"a screen of 360 pixels has to scroll over {width}")
    fill(page)
    page.screenshot(path=page.shots / "page-small.png", full_page=True)


ORDINARY = [
    check_the_models_are_listed,
    check_a_text_fills_step_by_step,
    check_a_seed_gives_its_text_again,
    check_stopping_ends_a_long_run,
    check_a_text_without_blanks_is_continued,
    check_what_the_server_refuses_is_said,
    check_an_earlier_result_comes_back,
    check_the_text_is_kept_over_a_reload,
    check_errors_name_no_field_that_the_page_lacks,
    check_counts_are_explained,
    check_light,
]
SCREENS = [("light", 1100, 850, ORDINARY), ("dark", 1100, 850, [check_dark]), ("light", 360, 740, [check_small])]


def main(screens: list[tuple] = SCREENS) -> int:
    """Runs checks, each a function of a page, on screens (scheme, width, height, checks)."""
    script = Path(sys.argv[0]).name
    if len(sys.argv) != 3:
        print(f"{script}: python {script} URL SCREENSHOT_DIR", file=sys.stderr)
        return 2
    url, shots = sys.argv[1], Path(sys.argv[2])
    shots.mkdir(parents=True, exist_ok=True)
    passed = failed = 0
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for scheme, width, height, checks in screens:
            context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": height})
            context.add_init_script(WATCH_POLICY)
            page = context.new_page()
            page.shots, page.base = shots, url
            complaints: list[str] = []
            page.on("pageerror", lambda error, to=complaints: to.append(str(error)))
            # A refusal is logged by the browser as well; the page says it to the person. (404: a file of examples/web.)
            page.on("console", lambda line, to=complaints: to.append(line.text)
                    if line.type == "error" and not re.search("status of 40[04]", line.text) else None)

            def check_nothing_was_complained_of(page: Page, complaints: list[str] = complaints) -> None:
                found = complaints + page.evaluate("window.violations")
                need(not found, f"the browser complains: {'; '.join(found)}")

            try:
                page.goto(url)
            except Error as error:
                print(f"{script}: {error.message.splitlines()[0]}", file=sys.stderr)
                return 1
            for check in [*checks, check_nothing_was_complained_of]:
                name = f"{check.__name__.removeprefix('check_').replace('_', ' ')} ({scheme}, {width} px)"
                try:
                    check(page)
                except (Wrong, Error, AssertionError) as error:
                    failed += 1
                    print(f"{script}: {name}: {str(error).splitlines()[0]}", file=sys.stderr)
                else:
                    passed += 1
                    print(f"ok  {name}")
            context.close()
        browser.close()
    print(f"{passed} passed, {failed} failed", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
