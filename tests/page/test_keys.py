"""The page of a service with API keys."""

import re

import pytest
from playwright.sync_api import expect

from tests.app.fakes import encode
from tests.page.actions import as_file, choose, expect_label
from tests.page.conftest import serve

API_KEY = "0123456789-secret-0123456789"


@pytest.fixture
def open_locked(open_page, models):
    """Open the page of a service whose key has changed since, so that the browser has no valid one."""
    with serve(models, api_keys=API_KEY) as keyed:
        page = open_page("/", keyed.url, extra_http_headers={"authorization": f"Bearer {API_KEY}"})
        page.wait_for_selector("#file[multiple]")
        page.context.set_extra_http_headers({})
        yield page


def test_a_key_is_asked_for_once_and_sent(open_locked):
    """After 401, a field appears, and the request is sent again with the key. The curl line contains no key."""
    page = open_locked
    with page.expect_response("**/predict") as refusal:
        choose(page, as_file(encode("red")), as_file(encode("blue")))
    # `Basic` would open the browser's own dialogue over the field.
    assert refusal.value.all_headers()["www-authenticate"] == 'Bearer realm="classifier"'
    field = page.get_by_label("This service needs an API key")
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


def test_a_wrong_key_shows_an_error(open_locked):
    """A key that the service rejects, and one that can't be sent in a header. The correct key succeeds."""
    page = open_locked
    choose(page, as_file(encode("red")))
    field = page.get_by_label("This service needs an API key")
    for key, objection in (
        ("wrong", "The key is wrong."),
        ("100 €", "A key has only ASCII letters, digits and punctuation."),
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
    """The page does not blame the service."""
    page = open_locked
    page.evaluate("key => sessionStorage.setItem('api-key', key)", key)
    choose(page, as_file(encode("red")))
    expect(page.get_by_label("This service needs an API key")).to_be_focused()
    assert page.evaluate("sessionStorage.length") == 0


def test_a_new_key_is_tried_for_requests_rejected_in_the_meantime(open_locked):
    """They were rejected with another key."""
    page = open_locked
    held = []
    page.route("**/predict", lambda route: held.append(route) if len(held) < 2 else route.continue_())
    choose(page, as_file(encode("red"), "red.png"), as_file(encode("blue"), "blue.png"))
    while len(held) < 2:
        page.wait_for_timeout(10)
    held[0].continue_()
    page.get_by_label("This service needs an API key").fill(API_KEY)
    page.keyboard.press("Enter")
    expect_label(page, "red")
    held[1].continue_()
    expect(page.locator("#status")).to_have_text(re.compile("^2 of 2 done. blue.png: blue"))
    expect(page.locator("#access")).to_be_hidden()


def test_a_service_with_keys_shows_every_page_completely(open_page, models):
    """Also on pages outside the first page's folder, because a browser keeps the key for paths below it."""
    with serve(models, api_keys=API_KEY) as keyed:
        page = open_page("/model/card/", keyed.url, http_credentials={"username": "", "password": API_KEY})
        assert page.locator("header img").evaluate("image => image.naturalWidth") > 0
        page.get_by_role("link", name="Image classification").click()
        page.wait_for_selector("#file[multiple]")  # the script has loaded
        choose(page, as_file(encode("red")))
        expect_label(page, "red")


def test_a_service_with_keys_works_with_the_browsers_own_dialogue(open_page, models):
    """It asks once for the page, pictures and answers. The curl line has a placeholder for the key."""
    with serve(models, api_keys=API_KEY) as keyed:
        page = open_page("/", keyed.url, http_credentials={"username": "", "password": API_KEY})
        page.locator("[data-sample]").last.click()
        expect_label(page, "blue")
        expect(page.locator("#shown .curl")).to_contain_text('-H "Authorization: Bearer $KEY" -F file=@blue.png')
        assert "secret" not in page.content()
