"""Values as an override needs them, and words as a shell needs them: for saved overrides and for printed advice."""

from __future__ import annotations

import re
import shlex

_PLAIN = re.compile(r"[\w@%+:,./=-]+", re.ASCII)


def quoted(text: str) -> str:
    """Text as a quoted value of Hydra's override grammar, where a backslash before a quote is one too."""
    return _escaped(_in_quotes(text, "'"))


def typed_setting(key: str, value: str, *, is_list: bool = False) -> str:
    """`key=value` with the value quoted, as one word to type in a shell: for advice about what was not understood.

    A reference (`${...}`) stays one.

    Args:
        key, value: as they came.
        is_list: the value is a list in brackets, the closing one perhaps forgotten: its members are quoted, not the
            whole.
    """
    members = re.fullmatch(r"\[(.*?)\]?", value, re.S) if is_list else None
    if members is None:
        return shell_word(f"{key}={_spelt(value)}")
    plain = (part.strip().strip("'\"") for part in members[1].split(","))
    return shell_word(f"{key}=[{','.join(_spelt(part) for part in plain)}]")


def shell_word(text: str) -> str:
    """One word of a POSIX shell's command line, quoted only where it must be, readably where that is possible."""
    if _PLAIN.fullmatch(text):
        return text
    if "'" not in text or re.search(r"[$`\\!]", text):
        return shlex.quote(text)
    return '"' + text.replace('"', '\\"') + '"'


def _spelt(text: str) -> str:
    """The value in those quotes that it does not hold itself."""
    return _in_quotes(text, "'" if '"' in text else '"')


def _in_quotes(text: str, mark: str) -> str:
    inside = re.sub(rf"(\\*)({mark}|$)", lambda match: match[1] * 2 + match[2].replace(mark, f"\\{mark}"), text)
    return f"{mark}{inside}{mark}"


def _escaped(text: str) -> str:
    """References made plain text."""
    return re.sub(r"(\\*)\$\{", lambda match: match[1] * 2 + "\\${", text)
