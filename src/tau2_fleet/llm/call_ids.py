"""Ids of tool calls as other servers than the one that made them take them; used where a history is encoded."""

from __future__ import annotations

import hashlib
import re
from enum import StrEnum

_SIGNS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


class CallIdForm(StrEnum):
    """What a server demands of the ids in a history."""

    COMMON = "common"
    """At most 40 of `[A-Za-z0-9_-]`: OpenAI's, Anthropic's and those of most gateways."""
    MISTRAL = "mistral"
    """Nine letters and digits."""


_FITTING = {CallIdForm.COMMON: re.compile(r"[A-Za-z0-9_-]{1,40}"), CallIdForm.MISTRAL: re.compile(r"[A-Za-z0-9]{9}")}
_MISTRAL = re.compile(r"mi[sx]tral|ministral|magistral|codestral|devstral|pixtral|voxtral", re.IGNORECASE)


def fitting_id(call_id: str, form: CallIdForm) -> str:
    """The id itself where it fits; else one made of it, always the same, so that call and result stay together."""
    if _FITTING[form].fullmatch(call_id):
        return call_id
    number = int.from_bytes(hashlib.sha256(call_id.encode("utf-8", "backslashreplace")).digest())
    signs = []
    for _ in range(9 if form is CallIdForm.MISTRAL else 24):
        number, sign = divmod(number, len(_SIGNS))
        signs.append(_SIGNS[sign])
    return ("" if form is CallIdForm.MISTRAL else "call_") + "".join(signs)


def form_for(model: str | None, base_url: str | None, parser: str | None, *, own_pool: bool) -> CallIdForm | None:
    """What the server of a model demands; None: nothing, and its own ids come back to it as it gave them.

    Args:
        parser: the pool's tool-call parser, where it is known.
        own_pool: the servers are the fleet's (vLLM takes any id; some templates want their own back unchanged).
    """
    if any(_MISTRAL.search(text) for text in (model, base_url, parser) if text):
        return CallIdForm.MISTRAL
    return None if own_pool else CallIdForm.COMMON
