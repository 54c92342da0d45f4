"""Tells a model's thinking from what it says: `<think>` text is cut out of the reply, and kept."""

from __future__ import annotations

import re

_BLOCK = re.compile(r"<think>(.*?)(?:</think>|\Z)", re.DOTALL)


def split(text: str | None, thinking: str | None) -> tuple[str | None, str | None]:
    """Text without thinking, and all thinking: the server's own field first, then `<think>` blocks of the text.

    A block that is never closed reaches to the end; one that is never opened (chat templates open it
    in the prompt) reaches from the beginning. Text without any thinking is returned as it is.
    """
    if text is None or "think>" not in text:
        return text.lstrip() if text and thinking else text, thinking or None
    found = [thinking] if thinking else []
    before, closed, rest = text.partition("</think>")
    if closed and "<think>" not in before:
        found.append(before.strip())
        text = rest
    found += [block.strip() for block in _BLOCK.findall(text)]
    return _BLOCK.sub("", text).strip(), "\n".join(part for part in found if part) or None
