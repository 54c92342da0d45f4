"""Reads the body of an answer up to a limit, for the providers that go through a client of their own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from tau2_fleet.llm.failures import Failure, FailureCause

LONGEST_ANSWER = 32 * 1024 * 1024
"""Bytes; a server that sends more is out of order."""
_A_TURN = 256 * 1024
"""Bytes after which others have their turn: a client hands over what it has without ever waiting."""


async def read_bounded(pieces: AsyncIterator[bytes], longest: int = LONGEST_ANSWER) -> bytes:
    """All pieces together.

    Raises:
        Failure: they are longer than `longest` bytes.
    """
    found: list[bytes] = []
    length = in_turn = 0
    async for piece in pieces:
        found.append(piece)
        length += len(piece)
        in_turn += len(piece)
        if length > longest:
            raise Failure(FailureCause.unusable, f"the answer is longer than {longest} bytes")
        if in_turn > _A_TURN:
            in_turn = 0
            await asyncio.sleep(0)
    return b"".join(found)
