"""Asks a model for its votes on many simulations at once, within a budget; whatever was answered before is not asked
again."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote
from weakref import WeakValueDictionary

from tau2_fleet.errors import UserError
from tau2_fleet.llm.model import Model
from tau2_fleet.llm.settings import ModelSettings
from tau2_fleet.llm.types import (
    ChatMessage,
    ChatRequest,
    ContextOverflowError,
    FatalModelError,
    ModelError,
    Reply,
)
from tau2_fleet.record.line import SimulationKey
from tau2_fleet.review.answers import UnusableAnswer, Vote, read_vote
from tau2_fleet.review.case import Case
from tau2_fleet.review.prompt import SYSTEM, question
from tau2_fleet.review.servers import ReviewClients
from tau2_fleet.review.settings import ReviewSettings
from tau2_fleet.review.votes import ReviewAnswer, VoteFile, digest_of

ATTEMPTS = 3
"""Answers that are asked for until one can be read."""
_TYPICAL_OUTPUT = 1500
"""Tokens of an answer, before there were any."""
_CHARACTERS_PER_TOKEN = 3.5
_NO_SCHEMA = re.compile(
    r"response_format|json_schema|output_config|text\.format|guided|structured|grammar|schema", re.I
)

log = logging.getLogger(__name__)


class BudgetReached(Exception):
    """What is left does not pay for another answer."""


@dataclass(slots=True)
class Asked:
    """What asking has come to."""

    votes: dict[SimulationKey, list[Vote]] = field(default_factory=dict)
    """Of every simulation that was asked about to the end; fewer than wanted where answers could not be used."""
    unusable: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    """Why answers could not be used, and calls failed, with how many."""
    new: int = 0
    """Answers of this review; the others stood in the file."""
    stopped: str | None = None
    """Why it ended before all had been asked."""

    def note(self, reason: str) -> None:
        self.reasons[reason] = self.reasons.get(reason, 0) + 1


class Reviewer:
    """One review of one run by a model."""

    def __init__(
        self,
        settings: ReviewSettings,
        judge: ModelSettings,
        clients: ReviewClients,
        votes: VoteFile,
        policy: Callable[[Case], str | None],
    ) -> None:
        self._settings = settings
        self._judge = judge
        self._clients = clients
        self._takes_schema = True
        self._file = votes
        self._policy = policy
        self._asking: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """Digest of a question to the lock of those that want its answer."""
        self._purse = asyncio.Condition()
        self._reserved_usd = 0.0
        self._in_flight = 0
        self._output: list[int] = []
        self.asked = Asked()

    async def review(self, keys: Sequence[SimulationKey], find: Callable[[SimulationKey], Case]) -> Asked:
        """Ask about these simulations, in their order, as many at once as may be.

        Raises:
            UserError: the model cannot be asked at all.
        """
        waiting = list(reversed(keys))

        async def work() -> None:
            while waiting:
                key = waiting.pop()
                try:
                    self.asked.votes[key] = await self._votes(find(key))
                except BudgetReached as error:
                    self.asked.stopped = str(error)
                except FatalModelError as error:
                    raise UserError(f"--judge: {error}") from error

        workers = min(len(keys), max(1, -(-self._settings.max_in_flight // self._settings.votes)))
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(workers):
                    group.create_task(work())
        except* UserError as errors:
            raise errors.exceptions[0] from None
        return self.asked

    async def _votes(self, case: Case) -> list[Vote]:
        text, name = question(case, self._policy(case))
        tasks = [self._vote(case, text, name, number) for number in range(self._settings.votes)]
        found = await asyncio.gather(*tasks, return_exceptions=True)
        for one in found:
            if isinstance(one, BaseException):
                raise one
        return [one for one in found if isinstance(one, Vote)]

    async def _vote(self, case: Case, text: str, name: str, number: int) -> Vote | None:
        """One vote; None where no answer could be used."""
        for attempt in range(ATTEMPTS):
            digest = digest_of(self._judge, SYSTEM, text, number, attempt)
            try:
                # Conversations that are alike are one question: who comes second waits for the answer to the first.
                async with self._asking.setdefault(digest, asyncio.Lock()):
                    answer = self._file.get(digest) or await self._paid(case, text, number, attempt, digest)
            except ContextOverflowError as error:
                self.asked.note(str(error))
                return None
            except FatalModelError:
                raise
            except ModelError as error:
                self.asked.note(str(error))
                continue
            try:
                return read_vote(answer.text, name, case)
            except UnusableAnswer as error:
                self.asked.unusable += 1
                self.asked.note(f"an answer that cannot be used: {error}")
        return None

    async def _paid(self, case: Case, text: str, number: int, attempt: int, digest: str) -> ReviewAnswer:
        """An answer, for which money is set aside first; it is kept at once."""
        price_in, price_out = self._clients.usd_per_token
        typical = sum(self._output) / len(self._output) if self._output else _TYPICAL_OUTPUT
        expected = (len(SYSTEM) + len(text)) / _CHARACTERS_PER_TOKEN * price_in + typical * price_out
        limit = self._settings.max_cost_usd
        async with self._purse:
            while expected > 0 and self._file.spent_usd + self._reserved_usd + expected > limit:
                if self._in_flight == 0 or self._file.spent_usd + expected > limit:
                    raise BudgetReached(
                        f"${self._file.spent_usd:.2f} of review.max_cost_usd={limit:g} are spent, and another answer "
                        f"would cost about ${expected:.3f}"
                    )
                await self._purse.wait()
            if self.asked.stopped is not None:
                raise BudgetReached(self.asked.stopped)
            self._in_flight += 1
            self._reserved_usd += expected
        try:
            answer = await self._asked(case, text, number, attempt)
            self._file.add(digest, case.key, number, answer)
            self.asked.new += 1
            return answer
        finally:
            self._in_flight -= 1
            self._reserved_usd -= expected
            async with self._purse:
                self._purse.notify_all()

    async def _asked(self, case: Case, text: str, number: int, attempt: int) -> ReviewAnswer:
        key = case.key
        session = f"review/{key.domain}/{quote(key.task_id, safe='')}/{key.trial}/reviewer-{number}"
        request = ChatRequest(
            messages=[ChatMessage("system", SYSTEM), ChatMessage("user", text)],
            session=session,
            seed=self._settings.seed + 1000 * number + attempt,
        )
        with_schema = self._takes_schema
        model = self._clients.with_schema if with_schema else self._clients.plain
        try:
            reply = await self._complete(model, request)
        except ModelError as error:
            if not with_schema or not _NO_SCHEMA.search(str(error)):
                raise
            if self._takes_schema:
                log.warning("%s takes no schema for its answers, and is asked without: %s", model.name, error)
            self._takes_schema = False
            reply = await self._complete(self._clients.plain, request)
        self._output.append(reply.stats.usage.output_tokens)
        return ReviewAnswer(reply.text or "", reply.stats.cost_usd, reply.stats.returned_model or model.name)

    async def _complete(self, model: Model, request: ChatRequest) -> Reply:
        try:
            return await model.complete(request)
        finally:
            model.end_session(request.session)
