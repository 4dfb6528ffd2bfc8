"""The page's looks: accessible, on any screen, in light and dark."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from app.pages.render import STATIC
from tests.app.fakes import encode, tell_brightness
from tests.page.actions import PHONE, SMALLEST, as_file, choose, expect_label


@pytest.mark.parametrize("options", [{}, PHONE, SMALLEST], ids=["desktop", "phone", "smallest"])
def test_every_page_is_accessible(open_page, options):
    """axe-core finds no violation on any page, and no page is wider than the screen.

    /docs is Swagger UI's page, as its makers have it; what this service adds is looked at below.
    """
    page = open_page(reduced_motion="reduce", **options)  # otherwise colours are still changing

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
def test_the_hint_is_accessible(open_page, service, options):
    """The hint for an unfamiliar image passes axe-core."""
    service.typicality = tell_brightness
    page = open_page(reduced_motion="reduce", **options)
    choose(page, as_file(encode("black")))
    expect(page.locator("#shown .hint")).to_be_visible()
    check_for_barriers(page)


@pytest.mark.parametrize("options", [{}, SMALLEST], ids=["desktop", "smallest"])
def test_every_page_is_accessible_without_scripts(open_page, options):
    """On the form, its result and an error. axe-core is a script, so only the page's own scripts are off."""
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
    """Check that axe-core finds no violation in light and dark, and that the page is no wider than the screen."""
    schemes = {"dark": {"runOnly": ["color-contrast"]}, "light": None}  # they differ only in colours
    for scheme, rules in schemes.items():
        page.emulate_media(color_scheme=scheme)
        found = Axe().run(page, options=rules)
        assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_a_table_of_the_card_keeps_its_words_whole(open_page):
    """On the smallest phone, the table scrolls."""
    page = open_page("/model/card/", **SMALLEST)
    cell = page.locator("td").first
    height = cell.bounding_box()["height"]
    cell.evaluate("cell => cell.textContent = 'long'.repeat(40)")
    assert cell.bounding_box()["height"] == height
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_large_text_leaves_room_for_the_bars(open_page):
    """On the smallest phone, each bar and its number fit into the page."""
    page = open_page(**SMALLEST)
    page.evaluate("document.documentElement.style.fontSize = '200%'")
    choose(page, as_file(encode("red")))
    expect_label(page, "red")
    answer = page.locator("#shown .answer").bounding_box()
    for number in page.locator("#shown .number").all():
        box = number.bounding_box()
        assert box["x"] + box["width"] <= answer["x"] + answer["width"]
    assert page.locator("#shown .bar").first.bounding_box()["width"] > 60
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_the_documentation_is_readable_on_a_phone(open_page):
    """The keyboard reaches scrolling tables, and code covers no other lines."""
    page = open_page("/docs", **SMALLEST)
    expect(page.locator(".renderedMarkdown table")).to_have_attribute("tabindex", "0")  # once it has loaded
    found = Axe().run(page, options={"runOnly": ["scrollable-region-focusable", "region", "landmark-one-main"]})
    assert found.violations_count == 0, found.generate_report()
    for side in ("top", "bottom"):
        expect(page.locator(".renderedMarkdown p > code").first).to_have_css(f"padding-{side}", "0px")


def test_dark_and_light_differ(open_page):
    """The page follows the system's preference."""
    colours = {
        open_page(color_scheme=scheme).evaluate("getComputedStyle(document.documentElement).backgroundColor")
        for scheme in ("light", "dark")
    }
    assert len(colours) == 2


def test_a_phone_offers_its_camera_and_a_desktop_does_not(open_page):
    """Its input requests the rear camera."""
    desktop = open_page()
    expect(desktop.get_by_text("Take a picture")).to_be_hidden()
    expect(desktop.get_by_text("Drop pictures here or paste one")).to_be_visible()
    page = open_page(**PHONE)
    expect(page.get_by_text("Take a picture")).to_be_visible()
    expect(page.get_by_text("Drop pictures here or paste one")).to_be_hidden()  # not possible on a touch screen
    assert page.get_attribute("#camera", "capture") == "environment"
    page.set_input_files("#camera", as_file(encode("blue")))
    expect_label(page, "blue")


def test_nothing_moves_on_a_phone_when_the_script_loads(open_page):
    """Everything that the script needs is there from the first paint."""
    page = open_page(**PHONE)
    page.wait_for_selector("#file[multiple]")
    samples = page.locator(".samples").bounding_box()
    page.route("**/page.js", lambda route: route.abort())
    page.reload()
    assert page.locator("#file[multiple]").count() == 0
    assert page.locator(".samples").bounding_box() == samples
