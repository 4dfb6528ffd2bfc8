"""Behaviour of the page below a proxy's path, with a real Chromium, nginx and service."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from benchmarks.port import find_free_port
from tests.app.fakes import encode
from tests.app.nginx import NGINX, run_nginx
from tests.page.actions import as_file, choose, expect_label
from tests.page.conftest import CHROMIUM, FLAGS, serve

pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed (Debian: apt-get install nginx)")
# The first is from tutorials, the second sends the prefix, the third leaves it in the path.
SITE = """
server {{
    listen 127.0.0.1:{port};
    location /classifier/ {{
        proxy_pass http://127.0.0.1:{set}/;
    }}
    location /sent/ {{
        proxy_pass http://127.0.0.1:{unset}/;
        proxy_set_header Host $http_host;
        proxy_set_header X-Forwarded-Prefix /sent;
    }}
    location /kept/ {{
        proxy_pass http://127.0.0.1:{unset};
        proxy_set_header Host $http_host;
        proxy_set_header X-Forwarded-Prefix /kept;
    }}
}}
"""


@pytest.fixture(scope="module")
def proxy(models: Path, tmp_path_factory) -> Iterator[str]:
    """Two services behind nginx, one of them with its prefix from a setting; returns nginx's address."""
    with serve(models, root_path="/classifier") as with_setting, serve(models) as without:
        port = find_free_port()
        ports = {"set": with_setting.url.split(":")[-1], "unset": without.url.split(":")[-1]}
        with run_nginx(tmp_path_factory.mktemp("nginx"), SITE.format(port=port, **ports), port):
            yield f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("prefix", ["/classifier", "/sent", "/kept"])
def test_the_page_works_below_a_path(open_page, proxy, prefix):
    """Files, the form, samples, the card and the API's documentation: all requests have the prefix."""
    page = open_page(f"{prefix}/", url=proxy)
    refused = []
    page.on("response", lambda response: response.status >= 400 and refused.append(response.url))
    page.on("request", lambda request: prefix in request.url or "blob:" in request.url or refused.append(request.url))
    choose(page, as_file(encode("blue")))
    expect_label(page, "blue")
    page.click("#shown summary")
    expect(page.locator(".curl")).to_contain_text(f"{prefix}/predict")
    page.click('[data-sample$="red.png"]')
    expect_label(page, "red")
    page.click("text=Model")
    expect(page.locator(".card h1")).to_have_text("tiny 1")
    expect(page.locator('img[alt="curves"]')).not_to_have_js_property("naturalWidth", 0)  # once it has loaded
    page.click("text=API")
    expect(page.locator("#operations-operate-health")).to_be_visible()
    page.click("#operations-operate-health")
    page.click("#operations-operate-health .execute")
    expect(page.locator("#operations-operate-health .live-responses-table tbody .response-col_status")).to_contain_text(
        "200"
    )
    page.click("text=Back to the form")
    expect(page.locator("#upload")).to_be_visible()
    assert refused == []


def test_the_form_works_without_javascript_below_a_path(open_page, proxy):
    """Its result, an error, and the links back from both."""
    page = open_page("/classifier/", url=proxy, java_script_enabled=False)
    for data, heading in ((encode("blue"), "blue"), (b"a text", "This is not a supported picture format")):
        choose(page, as_file(data))
        page.click("text=Classify")
        expect(page.locator("article h2")).to_contain_text(heading)
        page.click("text=Another picture" if heading == "blue" else "text=Back to the form")
        expect(page.locator("#upload")).to_be_visible()


@pytest.mark.parametrize("javascript", [True, False])
def test_the_form_works_without_https(browser, models: Path, javascript):
    """Browsers then send no Sec-Fetch-Site, and the service compares Origin."""
    sent = []
    flags = [*FLAGS, "--host-resolver-rules=MAP classifier.test 127.0.0.1"]
    with serve(models, allowed_hosts="classifier.test") as service:
        origin = f"http://classifier.test:{service.url.split(':')[-1]}"
        chromium = browser.browser_type.launch(executable_path=CHROMIUM, args=flags)
        page = chromium.new_context(java_script_enabled=javascript).new_page()
        page.on("request", lambda request: request.method == "POST" and sent.append(request.all_headers()))
        page.goto(f"{origin}/")
        choose(page, as_file(encode("blue")))
        if not javascript:
            page.click("text=Classify")
        expect(page.locator(".label").first).to_have_text("blue")
        chromium.close()
    assert [headers["origin"] for headers in sent] == [origin]
    assert "sec-fetch-site" not in sent[0]
