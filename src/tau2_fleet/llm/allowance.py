"""What the models of a run may still spend: a paid request sets aside what it may cost before it is sent.

`money.py` of the run makes one where there is a limit; models that cost nothing have none.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from tau2_fleet.llm.prices import Price
from tau2_fleet.llm.types import CallStats, ChatRequest, FatalModelError, Usage

OUT_OF_MONEY = "limits.max_cost_usd is used up"
"""What every refusal of an allowance begins with."""
_BYTES_PER_TOKEN = 3
"""Of a prompt: fewer than nearly all have, so that it is counted as too long rather than too short."""
_LONG_REPLY = 400
"""Tokens that a reply is counted with until one was longer."""


class BudgetError(FatalModelError):
    """No money is left for the request, which was not sent."""


class Pot(Protocol):
    """Where an allowance gets its money."""

    def draw(self, usd: float) -> float:
        """At least so much, or nothing where that is not there."""
        ...

    def refused(self, usd: float) -> None:
        """A request that may cost so much was not sent."""
        ...


class Allowance:
    """The money of one process; its models share it."""

    def __init__(self, pot: Pot) -> None:
        self._pot = pot
        self.at_hand_usd = 0.0
        """Drawn and not set aside; below 0 where replies were dearer than expected."""
        self._in_flight = 0
        self._settled = asyncio.Event()

    async def set_aside(self, usd: float) -> None:
        """Wait until so much is there: what requests in flight do not use comes back.

        Raises:
            BudgetError: it is not there, and nothing is in flight.
        """
        while True:
            if usd > self.at_hand_usd:
                self.at_hand_usd += self._pot.draw(usd - self.at_hand_usd)
            if usd <= self.at_hand_usd:
                self.at_hand_usd -= usd
                self._in_flight += 1
                return
            if not self._in_flight:
                self._pot.refused(usd)
                raise BudgetError(f"{OUT_OF_MONEY}: a request that may cost ${usd:.4f} was not sent")
            self._settled.clear()
            await self._settled.wait()

    def settle(self, usd: float, cost_usd: float) -> None:
        """A request for which `usd` was set aside is over, and has cost this."""
        self.at_hand_usd += usd - cost_usd
        self._in_flight -= 1
        self._settled.set()


class PaidModel:
    """What the requests of one model may cost."""

    def __init__(self, allowance: Allowance, price: Price, max_output_tokens: int | None) -> None:
        self._allowance = allowance
        self._price = price
        self._longest = min(_LONG_REPLY, max_output_tokens or _LONG_REPLY)
        """Tokens of a reply; the longest one so far."""

    @asynccontextmanager
    async def paying(self, request: ChatRequest, stats: CallStats) -> AsyncIterator[None]:
        """Set aside what the request may cost for as long as it is in flight, all its attempts.

        Raises:
            BudgetError: there is not so much.
        """
        size = sum(len(message.encoded) for message in request.messages)
        size += 0 if request.tools is None else len(request.tools.encoded)
        usd = self._price.cost_usd(Usage(size // _BYTES_PER_TOKEN, self._longest))
        before = stats.cost_usd
        await self._allowance.set_aside(usd)
        try:
            yield
        finally:
            self._longest = max(self._longest, stats.usage.output_tokens)
            self._allowance.settle(usd, stats.cost_usd - before)
