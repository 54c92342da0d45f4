"""A key is kept out in whatever way it is quoted, and nothing else is."""

from __future__ import annotations

import base64
import html
import json
import textwrap
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tau2_fleet.telemetry.secrets import REPLACEMENT, SHORTEST_IN_RECORDS, Redactor

PLAIN = "sk-proj-Zq7_x0PmN4wR8tYbK2vLcE6sD1fGhJ"
ODD = 'p4ss/wörd+with "quotes" & <signs>\\=='
LONG = "".join(f"{number:03d}abcXYZ" for number in range(20))

FORMS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "JSON": json.dumps,
    "JSON in JSON": lambda key: json.dumps(json.dumps(key)),
    "JSON in UTF-8": lambda key: json.dumps(key, ensure_ascii=False),
    "JSON with escaped slashes": lambda key: json.dumps(key).replace("/", r"\/"),
    "URL": quote,
    "a URL's query": quote_plus,
    "all of it percent": lambda key: quote(key, safe=""),
    "percent of percent": lambda key: quote(quote(key, safe=""), safe=""),
    "HTML": html.escape,
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("key", [PLAIN, ODD, LONG, "12345678"])
@pytest.mark.parametrize("sent", [True, False])
def test_a_key_is_kept_out_in_whatever_way_it_is_quoted(form: str, key: str, sent: bool) -> None:
    redactor = Redactor()
    redactor.add([key], sent=sent)
    quoted = FORMS[form](key)
    assert redactor.redact(f"before {quoted} after").replace('"', "").replace("\\", "") == f"before {REPLACEMENT} after"


@pytest.mark.parametrize("between", ["\n", "\r\n", "\n    ", " ", "\\n", "\\r\\n", "\\\\n\\\\t", "%0A"])
@pytest.mark.parametrize("key", [PLAIN, LONG])
def test_a_key_that_was_sent_is_kept_out_across_line_breaks(key: str, between: str) -> None:
    redactor = Redactor()
    redactor.add([key], sent=True)
    for at in range(1, len(key)):
        text = f"before {key[:at]}{between}{key[at:]} after"
        assert redactor.redact(text) == f"before {REPLACEMENT} after"
    wrapped = between.join(textwrap.wrap(key, 76, break_on_hyphens=False))
    assert redactor.redact(wrapped) == REPLACEMENT


@pytest.mark.parametrize("key", [PLAIN, ODD, LONG])
def test_a_key_that_was_sent_is_kept_out_in_capital_and_in_small_letters(key: str) -> None:
    redactor = Redactor()
    redactor.add([key], sent=True)
    for form in (key.upper(), key.lower(), quote(key.upper(), safe=""), json.dumps(key.lower())[1:-1]):
        assert redactor.redact(f"before {form} after") == f"before {REPLACEMENT} after"


def test_a_short_key_in_other_letters_may_be_a_word() -> None:
    redactor = Redactor()
    redactor.add(["Tokyo2026"], sent=True)
    assert redactor.redact("Tokyo2026 in tokyo2026") == f"{REPLACEMENT} in tokyo2026"


@pytest.mark.parametrize("form", ["\\u{:04x}", "\\u{:04X}", "%{:02x}", "%{:02X}", "%25{:02x}"])
def test_a_key_that_was_sent_is_kept_out_with_every_character_escaped(form: str) -> None:
    redactor = Redactor()
    redactor.add([PLAIN], sent=True)
    assert redactor.redact("".join(form.format(ord(sign)) for sign in PLAIN)) == REPLACEMENT


@pytest.mark.parametrize(
    "encode", [base64.b64encode, base64.urlsafe_b64encode, bytes.hex, lambda key: key.hex().upper()]
)
@pytest.mark.parametrize("before", ["", "a", "Bearer ", "name:"])
@pytest.mark.parametrize("key", [PLAIN, ODD, LONG, "~~~???>>>", "12345678"])
def test_a_key_that_was_sent_is_kept_out_where_it_was_encoded(
    key: str, before: str, encode: Callable[[bytes], bytes | str]
) -> None:
    redactor = Redactor()
    redactor.add([key], sent=True)

    def encoded(text: str) -> str:
        found = encode(text.encode())
        return found if isinstance(found, str) else found.decode().rstrip("=")

    told = redactor.redact(f"<{encoded(before + key + ' after')}>")
    assert REPLACEMENT in told
    assert len(told) <= len(encoded(before + " after")) + len(f"<{REPLACEMENT}>") + 6  # signs that hold bits of both
    assert redactor.redact(encoded(before + key[:-1])) == encoded(before + key[:-1])


@given(st.text(st.characters(codec="utf-8"), min_size=8, max_size=40).map(str.strip).filter(lambda key: len(key) >= 8))
def test_any_key_is_found_in_any_form(key: str) -> None:
    redactor = Redactor([key])
    for form in (str, json.dumps, lambda text: quote(text, safe=""), html.escape):
        assert redactor.redact(f"<{form(key)}>") in (f"<{REPLACEMENT}>", f'<"{REPLACEMENT}">')


def test_of_two_keys_in_each_other_nothing_is_left() -> None:
    assert Redactor([PLAIN, PLAIN[:20]]).redact(f"{PLAIN} {PLAIN[:20]}") == f"{REPLACEMENT} {REPLACEMENT}"


def test_words_stay() -> None:
    text = "EMPTY none \ud800 password1"
    assert Redactor(["EMPTY", "none"]).redact(text) is text
    assert Redactor(["password1"], shortest=SHORTEST_IN_RECORDS).redact(text) is text
    data = text.encode("utf-8", "surrogatepass")
    assert Redactor([PLAIN]).redact_bytes(data) is data
