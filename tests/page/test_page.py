"""The page in a real Chromium: what it sends, and how it shows the answers."""

import re

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from app.images.decode import encode_png
from tests.app.fakes import INPUT, encode, tell_brightness
from tests.app.pictures import decode
from tests.page.actions import PHONE, as_file, choose, expect_label


def read_pixels(page, selector: str) -> np.ndarray:
    """Read the pixels of an image on the page, as the browser decoded it."""
    width, height, values = page.locator(selector).evaluate("""image => {
        const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
        const context = canvas.getContext("2d");
        context.drawImage(image, 0, 0);
        return [canvas.width, canvas.height, [...context.getImageData(0, 0, canvas.width, canvas.height).data]];
    }""")
    return np.array(values, dtype=np.uint8).reshape(height, width, 4)[..., :3]


def transfer(page, name: str, data: bytes):
    """Make the data of a drop or a paste."""
    return page.evaluate_handle(
        """([name, bytes]) => {
            const transfer = new DataTransfer();
            if (bytes.length) transfer.items.add(new File([new Uint8Array(bytes)], name, { type: "image/png" }));
            return transfer;
        }""",
        [name, list(data)],
    )


def test_a_chosen_picture_is_classified(open_page):
    """It shows the label, bars, both pictures, times, the model's version and the curl line."""
    page = open_page()
    choose(page, as_file(encode((200, 50, 0)), "my picture's.png"))
    expect_label(page, "red")
    expect(page.locator("#shown .sure")).to_have_text("80\u00a0%")
    assert page.locator("#shown dt").all_inner_texts() == ["red", "green", "blue"]
    widths = [page.locator(".share").nth(i).bounding_box()["width"] for i in range(3)]
    track = page.locator(".track").first.bounding_box()["width"]
    assert [width / track for width in widths] == pytest.approx([0.8, 0.2, 0], abs=0.01)
    expect(page.locator("#status")).to_have_text("my picture's.png: red, 80\u00a0%")
    expect(page.locator("#shown .original figcaption")).to_have_text("my picture's.png")
    assert page.locator("#shown .original img").evaluate("image => image.naturalWidth") == 40
    expect(page.locator("#shown .answer .fine")).to_contain_text("tiny 1; ")
    page.click("#shown summary")
    expect(page.locator(".curl")).to_contain_text("curl -F 'file=@\"my picture'\\''s.png\"' http://127.0.0.1:")
    expect(page.locator(".json")).to_contain_text('{ "label": "green", "probability": 0.2 }')


def test_the_pixels_that_the_model_saw_are_shown_unchanged(open_page):
    """As the service decoded them, enlarged without smoothing."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8))
    data = encode_png(np.asarray(noise))
    page = open_page()
    choose(page, as_file(data))
    page.wait_for_selector("#shown .label")
    decoded = decode(data, INPUT.shape[:2])
    np.testing.assert_array_equal(read_pixels(page, "#shown .pixels"), decoded)
    assert page.locator(".pixels").evaluate("image => getComputedStyle(image).imageRendering") == "pixelated"


@pytest.mark.parametrize("where", [".drop", "h1"])
def test_a_dropped_picture_is_classified(open_page, where):
    """Anywhere on the page, which shows that it accepts the drop."""
    page = open_page()
    carried = transfer(page, "dropped.png", encode("blue"))
    page.dispatch_event(where, "dragenter", {"dataTransfer": carried})
    expect(page.locator("body")).to_have_class("dragging")
    page.dispatch_event(where, "drop", {"dataTransfer": carried})
    expect_label(page, "blue")
    expect(page.locator("body")).not_to_have_class("dragging")
    page.dispatch_event(where, "drop", {"dataTransfer": transfer(page, "", b"")})
    expect(page.locator("#status")).to_contain_text("That is not a file")


def test_a_pasted_picture_is_classified(open_page):
    """And the page reports a paste without a picture."""
    page = open_page()
    paste = """(_, data) => document.dispatchEvent(new ClipboardEvent("paste", {clipboardData: data, bubbles: true}))"""
    page.locator("body").evaluate(paste, transfer(page, "pasted.png", encode("lime")))
    expect_label(page, "green")
    page.locator("body").evaluate(paste, transfer(page, "", b""))
    expect(page.locator("#status")).to_have_text("There is no picture in the clipboard.")


def test_a_sample_is_classified_by_keyboard(open_page):
    """The tab key reaches everything, enter or space activate it, and focus is visible."""
    page = open_page()
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.dataset.sample ?? ''").endswith("blue.png"):
            break
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    page.keyboard.press("Enter")
    expect_label(page, "blue")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Space")
    expect_label(page, "red")
    page.get_by_text("Where the sample pictures come from").click()
    expect(page.get_by_text("Something red: made here")).to_be_visible()


def test_the_file_dialogue_opens_by_keyboard(open_page):
    """The visible button is the input's label; focus shows on it."""
    page = open_page()
    # Start listening before the key is pressed.
    page.on("filechooser", lambda chooser: chooser.set_files([as_file(encode("blue"))]))
    page.focus("#file")
    expect(page.locator("#file")).to_be_focused()
    page.keyboard.press("Enter")
    expect_label(page, "blue")


def test_several_pictures_become_a_gallery(open_page):
    """Each has a button, a rejected one does not affect the others, and the status counts them."""
    page = open_page()
    colours = ("red", "lime", "blue")
    choose(page, *(as_file(encode(colour), f"{colour}.png") for colour in colours), as_file(b"text", "notes.txt"))
    expect(page.locator("#status")).to_contain_text("4 of 4 done")
    captions = page.locator("#gallery .caption").all_inner_texts()
    assert [text.split(",")[0].split("\n") for text in captions] == [
        ["red.png", "red"], ["lime.png", "green"], ["blue.png", "blue"],
        ["notes.txt", "This is not a supported picture format"],
    ]  # fmt: skip
    expect_label(page, "red")
    page.get_by_role("button", name="blue.png: blue").click()
    expect_label(page, "blue")
    expect(page.get_by_role("button", name="blue.png: blue")).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="notes.txt").click()
    expect(page.locator("#shown .problem h2")).to_have_text("This is not a supported picture format")
    expect(page.locator("#shown .original figcaption")).to_have_text("notes.txt")
    expect(page.locator("#shown .original img")).to_have_count(0)
    choose(page, as_file(encode("red"), "again.png"))
    expect(page.locator("#gallery li")).to_have_count(5)


def test_an_unfamiliar_picture_gets_a_hint(open_page, service):
    """In its result, and a word on its tile; a familiar one gets neither."""
    service.typicality = tell_brightness
    page = open_page()
    choose(page, as_file(encode("black"), "cup.png"), as_file(encode("blue"), "sky.png"))
    expect(page.locator("#status")).to_contain_text("2 of 2 done")
    page.get_by_role("button", name="cup.png: red, 33\u00a0%, unfamiliar").click()
    expect(page.locator("#shown .hint")).to_contain_text("may show none of its classes")
    page.get_by_role("button", name="sky.png: blue, >\u00a099\u00a0%", exact=True).click()
    expect(page.locator("#shown .hint")).to_have_count(0)


def test_a_chosen_tile_brings_its_result_into_sight(open_page):
    """On a phone, the tiles fill the screen."""
    page = open_page(**{**PHONE, "viewport": {"width": 390, "height": 844}})
    choose(page, *(as_file(encode("red"), f"{number}.png") for number in range(12)))
    expect(page.locator("#status")).to_contain_text("12 of 12 done")
    page.evaluate("scrollTo(0, document.querySelector('#gallery').getBoundingClientRect().top + scrollY)")
    page.evaluate("document.querySelector('#shown').style.marginTop = '100vh'")  # like many more tiles
    expect(page.locator("#shown .label")).not_to_be_in_viewport()
    page.get_by_role("button", name="1.png: red").first.click()
    expect(page.locator("#shown .label")).to_be_in_viewport()


def test_answers_to_several_pictures_do_not_scroll_the_page(open_page):
    """The page scrolls to the tiles when files are added, and not again when answers arrive."""
    page = open_page(**PHONE)
    held = []
    page.route("**/predict", lambda route: held.append(route))  # noqa: PLW0108 -- Playwright accepts no built-in
    choose(page, *(as_file(encode("red"), f"{number}.png") for number in range(20)))
    expect(page.locator("#gallery li").first).to_be_in_viewport(ratio=0.9)
    expect(page.locator("h1")).not_to_be_in_viewport()

    def answer(first: int, last: int) -> None:
        for number in range(first, last + 1):
            while not held:
                page.wait_for_timeout(10)
            held.pop(0).fulfill(status=422, body="<main><article><h2>No</h2></article></main>")
            expect(page.locator("#status")).to_contain_text(f"{number} of 20 done")

    answer(1, 10)
    expect(page.locator("#status")).to_be_in_viewport(ratio=1)
    expect(page.locator("#gallery li").first).to_be_in_viewport(ratio=0.9)
    page.evaluate("scrollTo(0, 0)")
    answer(11, 20)
    assert page.evaluate("scrollY") == 0


def test_too_many_pictures_are_reported(open_page):
    """The sixty-first is not sent, and the page says so."""
    page = open_page()
    page.route(
        "**/predict", lambda route: route.fulfill(status=422, body="<main><article><h2>No</h2></article></main>")
    )
    choose(page, *(as_file(encode("red"), f"{number}.png") for number in range(61)))
    expect(page.locator("#status")).to_have_text(
        re.compile(
            r"^60 of 60 done\. .*: No\. Only the first 60 were sent; python -m app\.classify reads whole folders\.$"
        )
    )
    choose(page, as_file(encode("red"), "one.png"))
    expect(page.locator("#status")).to_have_text("one.png: No")


def test_a_new_version_shows_after_its_first_answer(open_page, service):
    """The page describes the model that answered."""
    page = open_page()
    expect(page.locator("#model strong")).to_have_text("tiny 1")
    store = service.app.state.classifier.store
    before = store._model
    metadata = before.metadata.model_copy(update={"version": 2})
    store._model = type(before)(metadata, before.runtime, before.folder)
    choose(page, as_file(encode("red")))
    expect(page.locator("#model strong")).to_have_text("tiny 2")
    store._model = before


def test_without_a_script_it_is_a_plain_form(open_page):
    """Results and errors are pages of their own."""
    page = open_page(java_script_enabled=False, **PHONE)
    for text in ("Take a picture", "Or try one of these", "Where the sample pictures come from"):
        expect(page.get_by_text(text)).to_be_hidden()
    choose(page, as_file(encode("blue")))
    page.get_by_role("button", name="Classify").click()
    expect(page.locator(".label")).to_have_text("blue")
    expect(page.locator(".pixels")).to_be_visible()
    page.get_by_role("link", name="Another picture").click()
    choose(page, as_file(b"text"))
    page.get_by_role("button", name="Classify").click()
    expect(page.locator(".problem h2")).to_have_text("This is not a supported picture format")
    page.get_by_role("link", name="Back to the form").click()
    expect(page.locator(".drop")).to_be_visible()


@pytest.mark.parametrize("script", ["page.js", "gallery.js", "service.js"])
def test_a_script_that_does_not_arrive_leaves_a_working_form(open_page, script):
    """Its button shows once a picture is chosen; with scripts, it never does."""
    page = open_page()
    button = page.get_by_role("button", name="Classify")
    choose(page, as_file(encode("red")))
    expect_label(page, "red")
    expect(button).to_be_hidden()
    page.route(f"**/{script}", lambda route: route.abort())
    page.reload()
    expect(button).to_be_hidden()
    choose(page, as_file(encode("blue")))
    button.click()
    expect(page.locator("main > .result .label")).to_have_text("blue")


def test_without_scripts_the_documentation_has_links(open_page):
    """It links to the OpenAPI document and the form."""
    page = open_page("/docs", java_script_enabled=False)
    expect(page.get_by_role("main").get_by_role("link", name="openapi.json")).to_have_attribute("href", "/openapi.json")
    page.get_by_role("link", name="Back to the form").click()
    expect(page.locator(".drop")).to_be_visible()


def test_the_card_is_readable_and_runs_no_script(open_page):
    """Its Markdown is HTML, its plots load, and HTML in it is text."""
    page = open_page()
    page.get_by_role("link", name="What it is good for, and not").click()
    expect(page.locator("h1")).to_have_text("tiny 1")
    expect(page.locator(".card")).to_contain_text("<script>alert(1)</script>")
    expect(page.locator(".card img")).to_have_js_property("naturalWidth", 40)  # once it has loaded
    assert page.locator(".card a").count() == 0


def test_the_documentation_loads_only_from_the_service_and_works(open_page, service):
    """Swagger UI shows every endpoint and can call one."""
    page = open_page("/docs")
    expect(page.locator(".opblock")).to_have_count(sum(map(len, service.app.openapi()["paths"].values())))
    page.locator("#operations-operate-live").click()
    page.get_by_role("button", name="Execute").click()
    expect(page.locator(".live-responses-table")).to_contain_text('"alive"')
    expect(page.locator("html")).not_to_have_class("dark-mode")
    page.emulate_media(color_scheme="dark")
    expect(page.locator("html")).to_have_class("dark-mode")
