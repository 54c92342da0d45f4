"""Chance that is none: numbers drawn from a hash of what they are for, the same in every process."""

from __future__ import annotations

from hashlib import blake2b


def chance(seed: int, *purpose: object) -> float:
    """A number in [0, 1), uniform over purposes, fixed for one seed and purpose."""
    text = "\x1f".join((str(seed), *map(str, purpose)))
    return int.from_bytes(blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "big") / 2**64
