"""The page in a real browser: two raters at once, a reload in the middle, a dead server, hostile text."""

import os
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest

from charter.records import Message, Prompt, ResponsePair
from charter.store.labels import Item, open_labels

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
HOSTILE = (
    "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">\n"
    "<form action='/label' method=post><button data-choice=first>Response 1 is better</button></form>\n"
    "</div></article><h1>You are done</h1><style>*{display:none}</style> javascript:alert(1) "
    "\u202etxet desrever\u202c zero\u200bwidth tag\U000e0041 bell\x07 **bold** [link](http://evil.example)"
)
EXPECTED = ("ERR_CONNECTION_REFUSED", "requires 'TrustedHTML'")  # the tests below cause both
SHOTS = os.environ.get("CHARTER_TEST_SHOTS")  # a folder, for people who want to look

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@contextmanager
def rater(browser, server, name, **options):
    """A page of one rater in a browser of its own. Anything that the page complains about, or loads from elsewhere, fails."""
    context = browser.new_context(**options)
    page = context.new_page()
    complaints = []
    page.on(
        "console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(dialog.message))
    page.on("request", lambda request: None if f":{server.port}/" in request.url else complaints.append(request.url))
    page.goto(server.url)
    page.get_by_label("Your name or initials").fill(name)
    page.get_by_role("button", name="Begin").click()
    page.locator("#task").wait_for()
    yield page
    assert [text for text in complaints if not any(word in text for word in EXPECTED)] == []
    context.close()


def shot(page, name):
    if SHOTS:
        page.wait_for_timeout(400)
        page.screenshot(path=str(Path(SHOTS) / f"{name}.png"))


def press(page, key):
    """A key, pressed when the pair has been there long enough to be read, and the answer of the server to it."""
    page.wait_for_timeout(350)
    with page.expect_response(lambda response: response.request.method == "POST"):
        page.keyboard.press(key)
    page.locator("body:not(.busy)").wait_for()


def current(page) -> tuple[str, str, str]:
    return tuple(page.locator(place).inner_text() for place in ("#conversation .said", "#first", "#second"))


@pytest.fixture
def source(request, tmp_path):
    """SQLite unless a test asks for both."""
    if getattr(request, "param", "sqlite") == "postgres":
        return request.getfixturevalue("postgres_url")
    return str(tmp_path / "labels.sqlite")


both = pytest.mark.parametrize("source", ["sqlite", "postgres"], indirect=True)


@both
def test_two_raters_a_reload_and_undo(browser, serve, source, make_items):
    server = serve(make_items(8), "--overlap", "0.25")
    with rater(browser, server, "Anna") as anna, rater(browser, server, "Ben") as ben:
        assert "token" not in anna.url
        chosen = []
        for page in (anna, ben):
            question, first, second = current(page)
            assert {first[1:], second[1:]} == {question.removeprefix("question ")}
            chosen.append((question.replace("question ", "pair-"), first[0].lower()))
            press(page, "1")
        for key in ("ArrowRight", "3"):
            press(anna, key)
        before = current(anna)
        anna.reload()
        anna.locator("#task").wait_for()
        assert current(anna) == before, "a reload shows the same pair in the same order"
        assert len(open_labels(source).labels()) == 4
        press(anna, "u")
        assert current(anna) != before
        assert len(open_labels(source).labels()) == 3
        while anna.locator("#task").is_visible():
            press(anna, "t")
        while ben.locator("#task").is_visible():
            press(ben, "2")
        assert "All done" in ben.locator("#end").inner_text()
        ben.locator("#end-figures dd").nth(5).wait_for()
        figures = ben.locator("#end-figures dd").all_text_contents()
        assert figures[0] == str(sum(label.rater == "Ben" for label in open_labels(source).labels()))
        assert figures[2] == "2"  # pairs that both labelled
        anna.locator("#look-again").click()
        anna.get_by_text("All done").wait_for()
        shot(anna, "end-of-two")
    labels = open_labels(source).labels()
    standing = [(label.pair_id, label.verdict) for label in labels if label.verdict != "tie"]
    assert set(chosen) <= set(standing)
    assert len({(label.pair_id, label.rater) for label in labels}) == len(labels)


def test_a_note_and_a_half_written_note(browser, serve, source, make_items):
    server = serve(make_items(3), "--overlap", "0")
    with rater(browser, server, "Anna") as page:
        page.keyboard.press("n")
        page.keyboard.type("tut 1 2 3 stu")  # keys inside a note are text
        page.reload()
        page.locator("#note").wait_for()
        assert page.locator("#note").input_value() == "tut 1 2 3 stu"
        page.locator("#note").focus()
        page.keyboard.press("Escape")
        page.wait_for_timeout(350)
        # the page's clock stands still, however busy the machine is: the next pair has been there for no time at all
        page.evaluate("const now = performance.now(); performance.now = () => now")
        press(page, "s")
        assert page.locator("#note-box").is_hidden()
        page.keyboard.press("1")  # too soon to be meant for the new pair
        page.wait_for_timeout(100)
    (label,) = open_labels(source).labels()
    assert (label.verdict, label.note) == ("skip", "tut 1 2 3 stu")


@both
def test_a_dead_server_loses_nothing(browser, serve, source, make_items):
    server = serve(make_items(3), "--overlap", "0")
    with rater(browser, server, "Anna") as page:
        before = current(page)
        page.wait_for_timeout(350)
        server.stop()
        page.keyboard.press("1")
        page.get_by_text("Your choice is kept").wait_for()
        assert current(page) == before, "the next pair waits until the label is stored"
        page.wait_for_timeout(700)
        server.start()
        page.get_by_text("Saved.").wait_for(timeout=15_000)
        assert current(page) != before
    (label,) = open_labels(source).labels()
    assert label.verdict == before[1][0].lower()


def test_hostile_text_is_text(browser, serve, source):
    prompt = Prompt("p", (Message("system", HOSTILE), Message("user", HOSTILE)))
    pairs = [ResponsePair("hostile", prompt, HOSTILE, HOSTILE + " other"), ResponsePair("next", prompt, "x", "y")]
    server = serve([Item(pair) for pair in pairs], "--overlap", "0")
    with rater(browser, server, "Anna", viewport={"width": 1280, "height": 900}) as page:
        for place in ("#first", "#second"):
            said = page.locator(place)
            assert said.locator(":scope *:not(.mark)").count() == 0
            text = said.text_content()
            assert "<script>document.title='owned'</script>" in text and "<form action='/label'" in text
            assert not set(text) & set("\u202e\u202c\u200b\x07\U000e0041")
            assert said.locator(".mark").all_text_contents() == ["U+202E", "U+202C", "U+200B", "U+E0041", "U+0007"]
            said.click()
        assert page.title() == "Charter · rate"
        assert page.locator("form").count() == 3  # ours alone
        shot(page, "hostile")
        page.wait_for_timeout(350)
        assert (
            page.evaluate("() => { try { document.body.innerHTML = '<b>'; return 'set' } catch { return 'refused' } }")
            == "refused"
        )
    assert open_labels(source).labels() == []


@pytest.mark.parametrize(("width", "height"), [(390, 844), (1280, 900)])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_the_screen(browser, serve, width, height, scheme):
    asked = "My neighbour lent me a spare key while she is away. May I use it to borrow her ladder without asking?"
    turns = (
        Message("user", "Hello, I need some advice."),
        Message("assistant", "Of course. What happened?"),
        Message("user", asked),
    )
    long = (
        "It is kind of her to trust you with the key, and the safest thing is to ask first: a short message is enough, and "
        "she will very likely say yes.\n\nIf you can't reach her and it isn't urgent, wait. If it is urgent (a leak, say), "
        "use the ladder, leave a note and tell her as soon as you can."
    )
    short = "Sure, go ahead. She gave you a key, so she won't mind. " + "0x" + "f" * 120
    items = [Item(ResponsePair(f"p{i}", Prompt(f"q{i}", turns), long + "\n" * i, short)) for i in range(5)]
    server = serve(items, "--constitution", "general")
    options = {"viewport": {"width": width, "height": height}, "color_scheme": scheme, "has_touch": width < 500}
    with rater(browser, server, "Anna", **options) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for button in page.locator("footer button:visible").all():
            box = button.bounding_box()
            assert box["x"] >= 0 and box["x"] + box["width"] <= width and box["height"] >= 40
        shot(page, f"task-{width}-{scheme}")
        press(page, "1")
        page.keyboard.press("n")
        shot(page, f"note-{width}-{scheme}")
        page.keyboard.press("Escape")
        page.keyboard.press("?")
        assert page.locator("#help").is_visible()
        shot(page, f"help-{width}-{scheme}")
        page.keyboard.press("Escape")
        if page.locator("#show-agreement").is_visible():
            page.locator("#show-agreement").click()
            page.locator("#agreement-figures dd").first.wait_for()
            shot(page, f"agreement-{width}-{scheme}")
            page.keyboard.press("Escape")
        if scheme == "dark":
            while page.locator("#task").is_visible():
                press(page, "2")
            shot(page, f"end-{width}-{scheme}")
        page.locator("#rater").click()
        page.locator("#join").wait_for()
        shot(page, f"join-{width}-{scheme}")
