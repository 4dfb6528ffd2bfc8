"""The page without an answer: rejected, busy, starting, unreachable."""

import threading
import time

import pytest
from playwright.sync_api import expect

from tests.app.fakes import encode, tell_colours, write_version
from tests.page.actions import as_file, choose, expect_label
from tests.page.conftest import serve


@pytest.mark.parametrize(
    ("data", "heading", "advice"),
    [
        (b"", "The file is empty", "send the image's bytes"),
        (b"text", "This is not a supported picture format", "JPEG, PNG"),
        (encode()[:60], "The picture is damaged or cut short", "send the whole file"),
        (encode(size=(1001, 1000), kind="JPEG"), "The picture has too many pixels", "at most 1,000,000 are decoded"),
        (bytes(100_000), "The file is too large", "Make it smaller: the limit is 100.0 kB."),
    ],
)
def test_a_rejection_is_explained(open_page, data, heading, advice):
    """With the reason and the remedy, without a retry button. Files that are too large are not sent."""
    page = open_page()
    sent = []
    page.on("request", lambda request: sent.append(request) if request.method == "POST" else None)
    choose(page, as_file(data, "bad.png"))
    expect(page.locator("#shown .problem h2")).to_have_text(heading)
    expect(page.locator("#shown .problem")).to_contain_text(advice)
    expect(page.locator("#status")).to_have_text(f"bad.png: {heading}")
    expect(page.locator("#shown .retry")).to_be_hidden()
    assert len(sent) == (len(data) < 100_000)


def test_the_page_retries_a_busy_service_after_retry_after(open_page, service):
    """The page says that it waits, and shows the answer when it arrives."""
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
    assert posted[2] - posted[1] > 0.9  # the browser reports requests a few milliseconds early or late


def test_the_page_stops_retrying_a_service_that_stays_busy(open_page):
    """After six tries, with a button to retry."""
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
    expect(page.locator("#status")).to_have_text("image.png: red, >\u00a099\u00a0%")  # one picture, not two


def test_an_unreachable_service_is_reported(open_page):
    """The picture stays, and a click sends it again."""
    page = open_page()
    page.context.set_offline(True)
    choose(page, as_file(encode("red")), as_file(encode("blue")))
    expect(page.locator("#shown .problem h2")).to_have_text("The service can’t be reached")
    expect(page.locator("#gallery .caption").first).to_have_text("image.pngThe service can’t be reached")
    expect(page.locator("#status")).to_contain_text("2 of 2 done")
    page.context.set_offline(False)
    page.get_by_role("button", name="Try again").press("Enter")
    expect_label(page, "red")
    expect(page.get_by_role("article", name="image.png")).to_be_focused()  # the button with the focus is gone


def test_a_dropped_folder_is_reported(open_page, tmp_path):
    """The page does not blame the service and offers no retry."""
    page = open_page()
    devtools = page.context.new_cdp_session(page)
    carried = {"items": [], "files": [str(tmp_path)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        devtools.send("Input.dispatchDragEvent", {"type": kind, "x": 200, "y": 200, "data": carried})
    expect(page.locator("#shown .problem")).to_contain_text("The file can’t be read\nIt is a folder, or")
    expect(page.locator("#status")).to_have_text(f"{tmp_path.name}: The file can’t be read")
    expect(page.locator("#shown .retry")).to_be_hidden()


def test_a_file_that_is_gone_before_the_retry_is_reported(open_page, tmp_path):
    """First the service was unreachable, then the file is gone."""
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


def test_an_upload_that_timed_out_can_be_retried(open_page):
    """The picture is not the problem."""
    page = open_page()
    refusal = "<main><article><h2>The upload took too long</h2></article></main>"
    page.route("**/predict", lambda route: route.fulfill(status=408, content_type="text/html", body=refusal), times=1)
    choose(page, as_file(encode("red")))
    page.get_by_role("button", name="Try again").click()
    expect_label(page, "red")


def test_another_page_is_not_mistaken_for_the_models_description(open_page):
    """A proxy may answer while the service restarts; the page tries again."""
    page = open_page()
    version = page.locator("#model").get_attribute("data-version")
    page.evaluate("document.querySelector('#model').dataset.version = '7'")
    page.route(page.url, lambda route: route.fulfill(content_type="text/html", body="<h1>Bad gateway</h1>"), times=1)
    choose(page, as_file(encode("red")))
    expect_label(page, "red")
    expect(page.locator("#model")).to_have_attribute("data-version", "7")
    choose(page, as_file(encode("blue")))
    expect(page.locator("#model")).to_have_attribute("data-version", version)


def test_a_page_without_a_model_waits_for_it(open_page, tmp_path):
    """It shows the reason, and continues once there is a model."""
    (tmp_path / "tiny").mkdir()
    with serve(tmp_path, model_poll_seconds=0.2) as service:
        idle, asking = open_page("/", service.url), open_page("/", service.url)
        expect(idle.locator("#model")).to_contain_text("No model serves at the moment")
        choose(asking, as_file(encode("red")))
        expected = f"expected {tmp_path}/<name>/<version>/"
        reason = f"No model serves: {tmp_path} contains no version; {expected}. Trying again in"
        expect(asking.locator("#shown .waiting")).to_contain_text(reason)
        expect(asking.locator("#status")).to_have_text("image.png: not ready, tries again")
        write_version(tmp_path)
        expect(asking.locator("#model strong")).to_have_text("tiny 1")
        for page in (idle, asking):
            expect(page.locator(".sources li")).to_have_count(2)
            expect(page.locator("[data-sample] img").last).to_have_js_property("naturalWidth", 40)
        expect(asking.locator("#shown .original figcaption")).to_have_text("image.png")  # it still waits
        for page in (idle, asking):
            page.locator("[data-sample]").last.click()
            expect_label(page, "blue")
        expect(asking.locator("#gallery li")).to_have_count(2)
