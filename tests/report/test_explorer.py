"""The label explorer in a real browser: under the page's own policy, by keyboard, and without scripts."""

import shutil

import pytest

from charter.report.page import write_report

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
HOSTILE = " </script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def opened(browser, make_run):
    """The page about a hostile run, and whatever it complained about."""
    path = write_report(make_run(num=60, hostile=HOSTILE))
    page = browser.new_page()
    complaints = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: complaints.append(request.url) if not request.url.startswith("file:") else None)
    page.goto(path.as_uri())
    page.wait_for_selector(".controls:not([hidden])")
    yield page, complaints
    page.close()


def test_filter_search_and_pages(opened):
    page, complaints = opened
    assert page.inner_text(".count") == "60 of 60 pairs"
    assert page.locator(".pairs > details").count() == 25
    page.click("text=Next")
    assert "page 2 of 3" in page.inner_text(".pager")
    page.select_option("[name=show]", "abstained")
    assert page.inner_text(".count") == "4 of 60 pairs"  # every 17th from the fourth
    page.select_option("[name=show]", "all")
    page.fill("[name=search]", "KETTLE")
    sync_api.expect(page.locator(".count")).to_have_text("10 of 60 pairs")
    assert complaints == []


def test_provenance_opens_by_keyboard_and_hostile_text_stays_text(opened):
    page, complaints = opened
    page.locator(".pair > summary").first.focus()
    page.keyboard.press("Enter")
    body = page.locator(".provenance").first
    sync_api.expect(body.locator("tbody tr")).to_have_count(8)
    assert HOSTILE.strip() in body.inner_text()
    assert body.locator("img, script").count() == 0
    assert "owned" not in page.title()
    assert complaints == []


@pytest.mark.parametrize("width", (390, 1280))
def test_the_page_never_scrolls_sideways(opened, width):
    page, _ = opened
    page.set_viewport_size({"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_without_scripts_the_first_pairs_are_there(browser, make_run):
    path = write_report(make_run(num=30))
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(path.as_uri())
    assert page.locator(".pair").count() == 25
    assert not page.locator(".controls").is_visible()
    context.close()
