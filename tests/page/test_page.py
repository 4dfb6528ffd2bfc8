"""Behaviour of the page in a real Chromium, at its full width and on a phone, with and without a script."""

import re
import threading
import time

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import expect

from app.image import decode_image, encode_png
from app.templates import STATIC
from tests.app.fakes import INPUT, encode, tell_colours, write_version
from tests.page.conftest import serve

PHONE = {"viewport": {"width": 390, "height": 800}, "is_mobile": True, "has_touch": True}
API_KEY = "0123456789-secret-0123456789"
SMALLEST = {**PHONE, "viewport": {"width": 320, "height": 640}}


def as_file(data: bytes, name: str = "image.png") -> dict:
    return {"name": name, "mimeType": "image/png", "buffer": data}


def choose(page, *files: dict) -> None:
    page.set_input_files("#file", list(files))


def expect_label(page, label: str) -> None:
    expect(page.locator("#shown .label")).to_have_text(label)


def read_pixels(page, selector: str) -> np.ndarray:
    """Read an image of the page pixel by pixel, as the browser decoded it."""
    width, height, values = page.locator(selector).evaluate("""image => {
        const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
        const context = canvas.getContext("2d");
        context.drawImage(image, 0, 0);
        return [canvas.width, canvas.height, [...context.getImageData(0, 0, canvas.width, canvas.height).data]];
    }""")
    return np.array(values, dtype=np.uint8).reshape(height, width, 4)[..., :3]


def transfer(page, name: str, data: bytes):
    """Make what a drop or a paste carries."""
    return page.evaluate_handle(
        """([name, bytes]) => {
            const transfer = new DataTransfer();
            if (bytes.length) transfer.items.add(new File([new Uint8Array(bytes)], name, { type: "image/png" }));
            return transfer;
        }""",
        [name, list(data)],
    )


def test_a_chosen_picture_is_classified(open_page):
    """Label, bars, both pictures, times, the model's version and what programs would do: at once."""
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
    """They come from the service's own decoding, and are enlarged without smoothing."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8))
    data = encode_png(np.asarray(noise))
    page = open_page()
    choose(page, as_file(data))
    page.wait_for_selector("#shown .label")
    decoded = decode_image(data, INPUT.shape[:2], max_pixels=10**6)
    np.testing.assert_array_equal(read_pixels(page, "#shown .pixels"), decoded)
    assert page.locator(".pixels").evaluate("image => getComputedStyle(image).imageRendering") == "pixelated"


@pytest.mark.parametrize("where", [".drop", "h1"])
def test_a_dropped_picture_is_classified(open_page, where):
    """Anywhere on the page, which shows that it would be taken."""
    page = open_page()
    carried = transfer(page, "dropped.png", encode("blue"))
    page.dispatch_event(where, "dragenter", {"dataTransfer": carried})
    expect(page.locator("body")).to_have_class("dragging")
    page.dispatch_event(where, "drop", {"dataTransfer": carried})
    expect_label(page, "blue")
    expect(page.locator("body")).not_to_have_class("dragging")
    page.dispatch_event(where, "drop", {"dataTransfer": transfer(page, "", b"")})
    expect(page.locator("#status")).to_contain_text("That was no file")


def test_a_pasted_picture_is_classified(open_page):
    """And what is no picture is named."""
    page = open_page()
    paste = """(_, data) => document.dispatchEvent(new ClipboardEvent("paste", {clipboardData: data, bubbles: true}))"""
    page.locator("body").evaluate(paste, transfer(page, "pasted.png", encode("lime")))
    expect_label(page, "green")
    page.locator("body").evaluate(paste, transfer(page, "", b""))
    expect(page.locator("#status")).to_have_text("There is no picture in the clipboard.")


def test_a_sample_is_classified_by_keyboard(open_page):
    """Everything can be reached with the tabulator key and worked with enter or space, focus in sight."""
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
    """The button that is seen is the input's label; focus shows on it."""
    page = open_page()
    # Listened for from here on: the browser must have been told before the key is pressed.
    page.on("filechooser", lambda chooser: chooser.set_files([as_file(encode("blue"))]))
    page.focus("#file")
    expect(page.locator("#file")).to_be_focused()
    page.keyboard.press("Enter")
    expect_label(page, "blue")


def test_several_pictures_become_a_gallery(open_page):
    """Each has its button; a refused one spoils no other; the status counts."""
    page = open_page()
    colours = ("red", "lime", "blue")
    choose(page, *(as_file(encode(colour), f"{colour}.png") for colour in colours), as_file(b"text", "notes.txt"))
    expect(page.locator("#status")).to_contain_text("4 of 4 done")
    captions = page.locator("#gallery .caption").all_inner_texts()
    assert [text.split(",")[0].split("\n") for text in captions] == [
        ["red.png", "red"], ["lime.png", "green"], ["blue.png", "blue"],
        ["notes.txt", "This is not a picture that is read here"],
    ]  # fmt: skip
    expect_label(page, "red")
    page.get_by_role("button", name="blue.png: blue").click()
    expect_label(page, "blue")
    expect(page.get_by_role("button", name="blue.png: blue")).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="notes.txt").click()
    expect(page.locator("#shown .problem h2")).to_have_text("This is not a picture that is read here")
    expect(page.locator("#shown .original figcaption")).to_have_text("notes.txt")
    expect(page.locator("#shown .original img")).to_have_count(0)
    choose(page, as_file(encode("red"), "again.png"))
    expect(page.locator("#gallery li")).to_have_count(5)


def test_a_chosen_tile_brings_its_result_into_sight(open_page):
    """On a phone the tiles alone fill the screen."""
    page = open_page(**{**PHONE, "viewport": {"width": 390, "height": 844}})
    choose(page, *(as_file(encode("red"), f"{number}.png") for number in range(12)))
    expect(page.locator("#status")).to_contain_text("12 of 12 done")
    page.evaluate("scrollTo(0, document.querySelector('#gallery').getBoundingClientRect().top + scrollY)")
    page.evaluate("document.querySelector('#shown').style.marginTop = '100vh'")  # as if there were many more
    expect(page.locator("#shown .label")).not_to_be_in_viewport()
    page.get_by_role("button", name="1.png: red").first.click()
    expect(page.locator("#shown .label")).to_be_in_viewport()


def test_answers_to_several_pictures_move_nobody(open_page):
    """The page goes to status and tiles when the files are added; who scrolls elsewhere then, is left there."""
    page = open_page(**PHONE)
    held = []
    page.route("**/predict", lambda route: held.append(route))  # noqa: PLW0108 -- Playwright takes no built-in
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


def test_more_pictures_than_are_taken_at_once_are_named_to_the_end(open_page):
    """The sixty-first is not sent, and what is left to read says so."""
    page = open_page()
    page.route(
        "**/predict", lambda route: route.fulfill(status=422, body="<main><article><h2>No</h2></article></main>")
    )
    choose(page, *(as_file(encode("red"), f"{number}.png") for number in range(61)))
    expect(page.locator("#status")).to_have_text(
        re.compile(
            r"^60 of 60 done\. .*: No\. Only the first 60 are taken; python -m app\.classify takes whole folders\.$"
        )
    )
    choose(page, as_file(encode("red"), "one.png"))
    expect(page.locator("#status")).to_have_text("one.png: No")


@pytest.mark.parametrize(
    ("data", "heading"),
    [
        (b"", "The file is empty"),
        (b"text", "This is not a picture that is read here"),
        (encode()[:60], "The picture is damaged or cut short"),
        (encode(size=(1001, 1000), kind="JPEG"), "The picture has too many pixels"),
        (bytes(100_000), "The file is too large"),
    ],
)
def test_a_refusal_is_said_in_clear_words(open_page, data, heading):
    """What is wrong and what to do; trying the same again is not offered, and what is too large is not sent at all."""
    page = open_page()
    sent = []
    page.on("request", lambda request: sent.append(request) if request.method == "POST" else None)
    choose(page, as_file(data, "bad.png"))
    expect(page.locator("#shown .problem h2")).to_have_text(heading)
    expect(page.locator("#status")).to_have_text(f"bad.png: {heading}")
    expect(page.locator("#shown .retry")).to_be_hidden()
    assert len(sent) == (len(data) < 100_000)


def test_a_busy_service_is_asked_again_after_the_time_it_named(open_page, service):
    """The page says so meanwhile, and shows the answer when it comes."""
    held, opened = threading.Event(), threading.Event()

    def hold(images):
        held.set()
        opened.wait(10)
        return tell_colours(images)

    service.predict = hold
    page = open_page()
    requests = []
    page.on("request", lambda request: requests.append((request.method, time.monotonic())))
    page.evaluate("""() => {
        const status = document.querySelector("#status");
        globalThis.said = [];
        new MutationObserver(() => said.push(status.textContent)).observe(status, { childList: true });
    }""")
    choose(page, as_file(encode("red"), "first.png"))
    page.wait_for_selector("[aria-busy=true]")
    assert held.wait(5)
    choose(page, as_file(encode("blue"), "second.png"))
    page.get_by_role("button", name="second.png: busy, tries again").click()
    expect(page.locator("#shown .waiting")).to_have_text("The service is busy. Trying again in 1 s")
    expect(page.locator("#status")).to_have_text("0 of 2 done. second.png: busy, tries again")
    opened.set()
    expect_label(page, "blue")
    assert sum("tries again" in text for text in page.evaluate("said")) == 1
    posted = [at for method, at in requests if method == "POST"]
    assert len(posted) == 3
    assert posted[2] - posted[1] > 0.9  # the browser's news of a request comes a few milliseconds early or late


def test_a_service_that_stays_busy_is_given_up_and_can_be_asked_again(open_page):
    """After six tries, with a button to go on."""
    page = open_page()
    answers = []

    def refuse(route):
        answers.append(route)
        if len(answers) <= 6:
            route.fulfill(status=503, headers={"Retry-After": "0.01", "Content-Type": "text/html"}, body="busy")
        else:
            route.continue_()

    page.route("**/predict", refuse)
    choose(page, as_file(encode("red")))
    expect(page.locator("#shown .problem")).to_contain_text("503")
    assert len(answers) == 6
    page.get_by_role("button", name="Try again").click()
    expect_label(page, "red")
    expect(page.locator("#status")).to_have_text("image.png: red, >\u00a099\u00a0%")  # it is one picture, not two


def test_an_unreachable_service_is_named_so(open_page):
    """The picture stays, and is sent again at a click."""
    page = open_page()
    page.context.set_offline(True)
    choose(page, as_file(encode("red")), as_file(encode("blue")))
    expect(page.locator("#shown .problem h2")).to_have_text("The service can’t be reached")
    expect(page.locator("#gallery .caption").first).to_have_text("image.pngThe service can’t be reached")
    expect(page.locator("#status")).to_contain_text("2 of 2 done")
    page.context.set_offline(False)
    page.get_by_role("button", name="Try again").press("Enter")
    expect_label(page, "red")
    expect(page.get_by_role("article", name="image.png")).to_be_focused()  # the button that had the focus has gone


def test_a_dropped_folder_is_named_so(open_page, tmp_path):
    """It is no fault of the service's, and another try helps nothing."""
    page = open_page()
    devtools = page.context.new_cdp_session(page)
    carried = {"items": [], "files": [str(tmp_path)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        devtools.send("Input.dispatchDragEvent", {"type": kind, "x": 200, "y": 200, "data": carried})
    expect(page.locator("#shown .problem")).to_contain_text("The file can’t be read\nIt is a folder, or")
    expect(page.locator("#status")).to_have_text(f"{tmp_path.name}: The file can’t be read")
    expect(page.locator("#shown .retry")).to_be_hidden()


def test_a_file_that_has_gone_before_another_try_is_named_so(open_page, tmp_path):
    """The first time the service was not there, the second time the file is not."""
    picture = tmp_path / "picture.png"
    picture.write_bytes(encode("red"))
    page = open_page()
    page.context.set_offline(True)
    page.set_input_files("#file", picture)
    expect(page.locator("#shown .problem h2")).to_have_text("The service can’t be reached")
    page.context.set_offline(False)
    picture.unlink()
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#shown .problem h2")).to_have_text("The file can’t be read")
    expect(page.locator("#shown .retry")).to_be_hidden()


def test_an_upload_that_came_too_slowly_can_be_tried_again(open_page):
    """There is nothing wrong with the picture."""
    page = open_page()
    refusal = "<main><article><h2>The upload took too long</h2></article></main>"
    page.route("**/predict", lambda route: route.fulfill(status=408, content_type="text/html", body=refusal), times=1)
    choose(page, as_file(encode("red")))
    page.get_by_role("button", name="Try again").click()
    expect_label(page, "red")


def test_another_page_is_not_taken_for_the_models_description(open_page):
    """A proxy may answer in the place of a service that restarts; the next look is as good."""
    page = open_page()
    version = page.locator("#model").get_attribute("data-version")
    page.evaluate("document.querySelector('#model').dataset.version = '7'")
    page.route(page.url, lambda route: route.fulfill(content_type="text/html", body="<h1>Bad gateway</h1>"), times=1)
    choose(page, as_file(encode("red")))
    expect_label(page, "red")
    expect(page.locator("#model")).to_have_attribute("data-version", "7")
    choose(page, as_file(encode("blue")))
    expect(page.locator("#model")).to_have_attribute("data-version", version)


@pytest.fixture
def open_locked(open_page, models):
    """Open the page of a service with a key as if the key had been changed since: the browser has none."""
    with serve(models, api_keys=API_KEY) as keyed:
        page = open_page("/", keyed.url, extra_http_headers={"authorization": f"Bearer {API_KEY}"})
        page.wait_for_selector("#file[multiple]")
        page.context.set_extra_http_headers({})
        yield page


def test_a_key_is_asked_for_once_and_sent(open_locked):
    """Upon 401 a field appears; what was refused is sent again with the key, and the curl line names no key."""
    page = open_locked
    with page.expect_response("**/predict") as refusal:
        choose(page, as_file(encode("red")), as_file(encode("blue")))
    # Upon Basic a browser would open its own dialogue, over the field.
    assert refusal.value.all_headers()["www-authenticate"] == 'Bearer realm="classifier"'
    field = page.get_by_label("This service asks for an API key")
    expect(field).to_be_focused()
    expect(field).to_have_accessible_description("")
    expect(page.locator("#shown .problem h2")).to_have_text("An API key is needed")
    page.keyboard.type(API_KEY)
    page.keyboard.press("Enter")
    expect_label(page, "red")
    expect(page.locator("#status")).to_contain_text("2 of 2 done")
    expect(page.locator("#access")).to_be_hidden()
    expect(page.locator("#shown > article")).to_be_focused()
    expect(page.locator("#shown .curl")).to_contain_text('-H "Authorization: Bearer $KEY" -F file=@image.png')
    assert "secret" not in page.content()
    page.context.set_extra_http_headers({"authorization": f"Bearer {API_KEY}"})
    page.reload()
    page.context.set_extra_http_headers({})
    page.locator("[data-sample]").last.click()
    expect_label(page, "blue")


def test_a_wrong_key_is_said_to_be_wrong(open_locked):
    """One that the service refuses, and one that can't be sent at all; the right one ends it."""
    page = open_locked
    choose(page, as_file(encode("red")))
    field = page.get_by_label("This service asks for an API key")
    for key, objection in (
        ("wrong", "This key was refused."),
        ("100 €", "No key is like this: keys have only plain letters, digits and signs (ASCII)."),
    ):
        field.fill(key)
        field.press("Enter")
        expect(page.get_by_role("alert")).to_have_text(objection)
        expect(page.get_by_role("alert")).to_be_visible()
        expect(field).to_have_accessible_description(objection)
        expect(field).to_be_focused()
    field.fill(API_KEY)
    field.press("Enter")
    expect_label(page, "red")


@pytest.mark.parametrize("key", ["100 €", "two\nlines"])
def test_a_kept_key_that_cannot_be_sent_is_asked_for_again(open_locked, key):
    """The service is not to blame."""
    page = open_locked
    page.evaluate("key => sessionStorage.setItem('api-key', key)", key)
    choose(page, as_file(encode("red")))
    expect(page.get_by_label("This service asks for an API key")).to_be_focused()
    assert page.evaluate("sessionStorage.length") == 0


def test_a_key_that_comes_while_others_are_refused_is_tried_for_them(open_locked):
    """It was not this key that was refused."""
    page = open_locked
    held = []
    page.route("**/predict", lambda route: held.append(route) if len(held) < 2 else route.continue_())
    choose(page, as_file(encode("red"), "red.png"), as_file(encode("blue"), "blue.png"))
    while len(held) < 2:
        page.wait_for_timeout(10)
    held[0].continue_()
    page.get_by_label("This service asks for an API key").fill(API_KEY)
    page.keyboard.press("Enter")
    expect_label(page, "red")
    held[1].continue_()
    expect(page.locator("#status")).to_have_text(re.compile("^2 of 2 done. blue.png: blue"))
    expect(page.locator("#access")).to_be_hidden()


def test_a_service_with_keys_shows_any_of_its_pages_in_full(open_page, models):
    """One that is not above the others, too: a browser keeps the key for what is below the page it was asked for."""
    with serve(models, api_keys=API_KEY) as keyed:
        page = open_page("/model/card/", keyed.url, http_credentials={"username": "", "password": API_KEY})
        assert page.locator("header img").evaluate("image => image.naturalWidth") > 0
        page.get_by_role("link", name="Image classification").click()
        page.wait_for_selector("#file[multiple]")  # the script has come
        choose(page, as_file(encode("red")))
        expect_label(page, "red")


def test_a_service_with_keys_works_through_the_browsers_own_question(open_page, models):
    """Which asks once for page, pictures and answers; the curl line says where the key goes, not the key."""
    with serve(models, api_keys=API_KEY) as keyed:
        page = open_page("/", keyed.url, http_credentials={"username": "", "password": API_KEY})
        page.locator("[data-sample]").last.click()
        expect_label(page, "blue")
        expect(page.locator("#shown .curl")).to_contain_text('-H "Authorization: Bearer $KEY" -F file=@blue.png')
        assert "secret" not in page.content()


def test_a_new_version_shows_after_its_first_answer(open_page, service):
    """What the page says of the model is what answered."""
    page = open_page()
    expect(page.locator("#model strong")).to_have_text("tiny 1")
    store = service.app.state.classifier.store
    before = store._model
    metadata = before.metadata.model_copy(update={"version": 2})
    store._model = type(before)(metadata, before.runtime, before.folder)
    choose(page, as_file(encode("red")))
    expect(page.locator("#model strong")).to_have_text("tiny 2")
    store._model = before


@pytest.mark.parametrize("options", [{}, PHONE, SMALLEST], ids=["desktop", "phone", "smallest"])
def test_no_barrier_is_found(open_page, options):
    """axe-core finds no violation on any of the service's own pages, and nothing is wider than the screen.

    /docs is Swagger UI's page, as its makers have it.
    """
    page = open_page(reduced_motion="reduce", **options)  # else colours are still on their way

    def check():
        check_for_barriers(page)

    check()
    choose(page, as_file(encode("red"), "a" * 80 + ".png"), as_file(b"text"), as_file(encode("blue")))
    expect(page.locator("#status")).to_contain_text("3 of 3 done")
    for summary in page.locator("summary:visible").all():
        summary.click()
    check()
    page.get_by_role("button", name="image.png: This").click()
    page.evaluate("document.querySelector('#access').hidden = false")
    check()
    page.goto(page.url + "model/card/")
    check()
    page.goto(page.url.replace("model/card/", "nowhere"))
    check()


@pytest.mark.parametrize("options", [{}, SMALLEST], ids=["desktop", "smallest"])
def test_no_barrier_is_found_without_a_script(open_page, options):
    """Neither on the form nor on its answer nor on a refusal; axe-core is a script, so only the page's own are off."""
    page = open_page(reduced_motion="reduce", **options)
    page.route("**/page.js", lambda route: route.abort())
    style = (STATIC / "page.css").read_text(encoding="utf-8").replace("(scripting: none)", "all")
    page.route("**/page.css", lambda route: route.fulfill(body=style, content_type="text/css"))
    for data, shown in ((encode("blue"), ".result"), (b"text", ".problem")):
        page.goto(page.url.removesuffix("predict"))
        check_for_barriers(page)
        choose(page, as_file(data))
        page.evaluate("document.querySelector('#upload').submit()")
        page.wait_for_selector(f"main > {shown}")
        check_for_barriers(page)


def check_for_barriers(page) -> None:
    """Check that axe-core finds no violation on a page, in light and dark, and that it is no wider than the screen."""
    schemes = {"dark": {"runOnly": ["color-contrast"]}, "light": None}  # they differ in nothing but colours
    for scheme, rules in schemes.items():
        page.emulate_media(color_scheme=scheme)
        found = Axe().run(page, options=rules)
        assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_dark_and_light_differ(open_page):
    """The page follows what the system prefers."""
    colours = {
        open_page(color_scheme=scheme).evaluate("getComputedStyle(document.documentElement).backgroundColor")
        for scheme in ("light", "dark")
    }
    assert len(colours) == 2


def test_a_phone_offers_its_camera_and_a_desktop_does_not(open_page):
    """The camera's input asks for the camera that looks at the world."""
    desktop = open_page()
    expect(desktop.get_by_text("Take a picture")).to_be_hidden()
    expect(desktop.get_by_text("Drop pictures here or paste one")).to_be_visible()
    page = open_page(**PHONE)
    expect(page.get_by_text("Take a picture")).to_be_visible()
    expect(page.get_by_text("Drop pictures here or paste one")).to_be_hidden()  # fingers can do neither
    assert page.get_attribute("#camera", "capture") == "environment"
    page.set_input_files("#camera", as_file(encode("blue")))
    expect_label(page, "blue")


def test_nothing_moves_on_a_phone_when_the_script_has_come(open_page):
    """What it shows beyond the form is there from the first paint on."""
    page = open_page(**PHONE)
    page.wait_for_selector("#file[multiple]")
    samples = page.locator(".samples").bounding_box()
    page.route("**/page.js", lambda route: route.abort())
    page.reload()
    assert page.locator("#file[multiple]").count() == 0
    assert page.locator(".samples").bounding_box() == samples


def test_without_a_script_it_is_a_plain_form(open_page):
    """The answer is a page of its own, refusals too."""
    page = open_page(java_script_enabled=False, **PHONE)
    expect(page.get_by_text("Take a picture")).to_be_hidden()
    choose(page, as_file(encode("blue")))
    page.get_by_role("button", name="Classify").click()
    expect(page.locator(".label")).to_have_text("blue")
    expect(page.locator(".pixels")).to_be_visible()
    page.get_by_role("link", name="Another picture").click()
    choose(page, as_file(b"text"))
    page.get_by_role("button", name="Classify").click()
    expect(page.locator(".problem h2")).to_have_text("This is not a picture that is read here")
    page.get_by_role("link", name="Back to the form").click()
    expect(page.locator(".drop")).to_be_visible()


def test_the_card_is_readable_and_runs_no_script(open_page):
    """Markdown as HTML, its plot loaded; HTML in it is text."""
    page = open_page()
    page.get_by_role("link", name="What it is good for, and not").click()
    expect(page.locator("h1")).to_have_text("tiny 1")
    expect(page.locator(".card")).to_contain_text("<script>alert(1)</script>")
    expect(page.locator(".card img")).to_have_js_property("naturalWidth", 40)  # once it has come
    assert page.locator(".card a").count() == 0


def test_the_documentation_loads_from_here_and_works(open_page, service):
    """Swagger UI shows every call and can make one."""
    page = open_page("/docs")
    expect(page.locator(".opblock")).to_have_count(sum(map(len, service.app.openapi()["paths"].values())))
    page.locator("#operations-operate-live").click()
    page.get_by_role("button", name="Execute").click()
    expect(page.locator(".live-responses-table")).to_contain_text('"alive"')
    expect(page.locator("html")).not_to_have_class("dark-mode")
    page.emulate_media(color_scheme="dark")
    expect(page.locator("html")).to_have_class("dark-mode")


def test_a_page_without_a_model_waits_for_it(open_page, tmp_path):
    """It says so instead of failing, and goes on once the model is there."""
    (tmp_path / "tiny").mkdir()
    with serve(tmp_path, model_poll_seconds=0.2) as service:
        idle, asking = open_page("/", service.url), open_page("/", service.url)
        expect(idle.locator("#model")).to_contain_text("No model serves at the moment")
        choose(asking, as_file(encode("red")))
        expect(asking.locator("#shown .waiting")).to_contain_text("The service is starting. Trying again in")
        expect(asking.locator("#status")).to_have_text("image.png: starting, tries again")
        write_version(tmp_path)
        expect(asking.locator("#model strong")).to_have_text("tiny 1")
        for page in (idle, asking):
            expect(page.locator(".sources li")).to_have_count(2)
            expect(page.locator("[data-sample] img").last).to_have_js_property("naturalWidth", 40)
        expect(asking.locator("#shown .original figcaption")).to_have_text("image.png")  # it waits on
        for page in (idle, asking):
            page.locator("[data-sample]").last.click()
            expect_label(page, "blue")
        expect(asking.locator("#gallery li")).to_have_count(2)
