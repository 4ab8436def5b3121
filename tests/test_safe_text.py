"""Nothing from a model moves the cursor, hides or reorders what a terminal shows."""

from hypothesis import given
from hypothesis import strategies as st

from charter.safe_text import safe_text


@given(st.text(alphabet=st.characters()))
def test_no_control_character_is_left(text):
    shown = safe_text(text)
    assert len(shown) == len(text)
    assert all(char in "\n\t" or char.isprintable() or not _dangerous(char) for char in shown)


def _dangerous(char: str) -> bool:
    code = ord(char)
    return code < 32 or 0x7F <= code < 0xA0 or 0x202A <= code <= 0x202E or 0x2066 <= code <= 0x2069


def test_known_attacks():
    assert (
        safe_text("\x1b]0;title\x07\x9b31m \u202eabc\u2066\rover")
        == "\ufffd]0;title\ufffd\ufffd31m \ufffdabc\ufffd\ufffdover"
    )
    assert safe_text("plain é 漢字 🙂\n\tok") == "plain é 漢字 🙂\n\tok"
