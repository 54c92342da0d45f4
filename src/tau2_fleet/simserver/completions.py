"""A chat completion from request to answer: its fault, its words, its time, its counting. Used by `server.py`."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import log as log_of

import orjson

from tau2_fleet.fleet.settings import FaultKind, SimulatedSettings
from tau2_fleet.simserver.chance import chance
from tau2_fleet.simserver.chat import ChatAnswer, ChatBody, answer_of, completion, parse_chat
from tau2_fleet.simserver.engine import Engine
from tau2_fleet.simserver.engine_model import Generation
from tau2_fleet.simserver.faults import (
    Fault,
    Faults,
    conditions_of,
    crash,
    gigantic,
    not_json,
    refusal,
    spoilt,
    wrong_types,
)
from tau2_fleet.simserver.gold_policy import next_turn
from tau2_fleet.simserver.http_server import Exchange
from tau2_fleet.simserver.latency import LatencyProfile
from tau2_fleet.simserver.policy_words import ScriptedTurn, Session, Situation, parse_session
from tau2_fleet.simserver.prefix_cache import PrefixCache, parts_of
from tau2_fleet.simserver.prometheus import ServerMetrics
from tau2_fleet.simserver.scripts import Scripts
from tau2_fleet.simserver.spoilt_replies import (
    REPEATED_TEXT,
    SPOILING,
    TEXT_STAYS,
    goes_on_repeating,
    is_third_time,
    spoil,
)

SPOILT_REPLY = "spoilt reply"
"""What the log calls a reply that was spoilt on purpose: `spoilt reply: cut retail/5/0/agent`."""
_PARSER_MODES = {"auto": "auto", "required": "required"}

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Pending:
    """A request whose answer is made and waits for its time; the messages are not kept."""

    exchange: Exchange
    payload: Callable[[int], bytes]
    """The answer's body, once it is known how many tokens of the prompt were cached."""
    prompt_tokens: int
    cached_tokens: int
    prompt: Sequence[tuple[int, int]]
    """The prompt in parts, for the engine."""
    output_tokens: int
    finished: str
    parsed: str | None
    started: float
    fault: Fault | None
    job: Generation | None = None


class Completions:
    """Plays the model of one replica; bound to the running event loop when its engine is on."""

    def __init__(
        self,
        model: str,
        scripts: Scripts,
        role: str,
        options: SimulatedSettings,
        latency: LatencyProfile | None,
        replica: str,
        metrics: ServerMetrics,
    ) -> None:
        self._model = model
        self._scripts = scripts
        self._default_role = role
        self._options = options
        self._latency = latency
        self._metrics = metrics
        self._faults = Faults(options.faults, options.seed, replica)
        remembers = options.prefix_cache_tokens > 0 and not options.engine.on
        self._cache = PrefixCache(options.prefix_cache_tokens) if remembers else None
        self._engine = Engine(options.engine, metrics) if options.engine.on else None
        self._served = 0

    def handle(self, exchange: Exchange) -> None:
        """ChatAnswer a request for a chat completion, now or later; raises `ApiError` for one that is refused."""
        started = time.monotonic()
        body = parse_chat(exchange.body, self._model, self._options.max_model_len)
        exchange.body = b""
        session = parse_session(exchange.headers.get(b"x-session-id", b"").decode("latin-1"))
        fault = self._faults.draw(session, len(body.messages)) if session is not None else None
        if fault is not None and self._strike(exchange, fault):
            return
        pending = self._answer(exchange, session, body, fault, started)
        exchange.on_end = partial(self._ended, pending)
        self._wait(pending, self._delay_s(session, body, fault))

    def _strike(self, exchange: Exchange, fault: Fault) -> bool:
        """Do what a fault does in place of an answer; False when it does not take that place."""
        refused = refusal(fault, self._options.faults)
        if refused is not None:
            status, content, headers = refused
            exchange.respond(status, content, headers=headers)
        elif fault.kind is FaultKind.reset:
            exchange.reset()
        elif fault.kind is FaultKind.not_json:
            exchange.respond(200, not_json(fault))
        elif fault.kind is FaultKind.gigantic:
            exchange.respond(200, gigantic(self._options.faults.gigantic_bytes))
        elif fault.kind is FaultKind.crash:
            log.error("crashing on request")
            crash(fault)
        else:
            return False
        return True

    def _answer(
        self, exchange: Exchange, session: Session | None, body: ChatBody, fault: Fault | None, started: float
    ) -> _Pending:
        situation = Situation(
            session=session,
            role=self._role(session),
            script=self._scripts.get(session.domain, session.quoted_task_id) if session is not None else None,
            messages=body.messages,
            tools=body.tools,
            tool_choice=body.tool_choice,
            call_expert_rate=self._options.call_expert_rate,
            seed=self._options.seed,
        )
        turn = next_turn(situation)
        if fault is not None:
            whole, turn = turn, spoilt(turn, fault)
            for condition in conditions_of(whole, turn, fault):
                _log_spoilt(condition, session)
        if session is not None and self._repeats(body, fault):
            turn = ScriptedTurn(REPEATED_TEXT)
        if turn.text and (fault is None or fault.kind in TEXT_STAYS) and is_third_time(turn.text, body.messages):
            _log_spoilt(FaultKind.repeated, session)
        answer = answer_of(turn, body)
        answer.completion_tokens = self._thought_tokens(session, body, answer.completion_tokens)
        tools = list(body.tools.values())
        self._served += 1
        identity = f"chatcmpl-{os.getpid()}-{self._served}"
        return _Pending(
            exchange=exchange,
            payload=partial(self._payload, answer, identity, body.prompt_tokens, session, fault),
            prompt_tokens=body.prompt_tokens,
            cached_tokens=0 if self._cache is None else self._cache.look_up(body.messages, tools),
            prompt=() if self._engine is None else parts_of(body.messages, tools),
            output_tokens=answer.completion_tokens,
            finished="length" if answer.finish_reason == "length" else "stop",
            parsed=_PARSER_MODES.get(body.tool_choice, "named") if answer.calls else None,
            started=started,
            fault=fault,
        )

    def _payload(
        self,
        answer: ChatAnswer,
        identity: str,
        prompt_tokens: int,
        session: Session | None,
        fault: Fault | None,
        cached_tokens: int,
    ) -> bytes:
        payload = completion(answer, identity, self._model, prompt_tokens, cached_tokens)
        if fault is not None and fault.kind is FaultKind.wrong_types:
            payload = wrong_types(payload, fault)
        if fault is not None and fault.kind in SPOILING:
            payload = self._spoilt(payload, session, fault)
        return payload

    @staticmethod
    def _spoilt(payload: bytes, session: Session | None, fault: Fault) -> bytes:
        """The payload as the fault makes it; the log says what a client should find in it."""
        made = spoil(payload, fault)
        if made is None:
            return payload
        if made.condition is not None:
            _log_spoilt(made.condition, session)
        return orjson.dumps(made.completion)

    @staticmethod
    def _repeats(body: ChatBody, fault: Fault | None) -> bool:
        """Whether the reply is the text that is said three times in a row: a repetition begins, or goes on."""
        begins = fault is not None and fault.kind is FaultKind.repeated
        return begins or (fault is None and goes_on_repeating(body.messages))

    def _wait(self, pending: _Pending, delay_s: float) -> None:
        """Send the answer when its time has come."""
        if self._engine is None:
            self._metrics.running += 1
        if pending.fault is not None and pending.fault.kind is FaultKind.hang:
            return
        go_on = partial(self._finish if self._engine is None else self._submit, pending)
        if delay_s > 0:
            asyncio.get_running_loop().call_later(delay_s, go_on)
        else:
            go_on()

    def _submit(self, pending: _Pending) -> None:
        if self._engine is not None and pending.exchange.open:
            finish = partial(self._finish, pending)
            pending.job = Generation(pending.prompt, pending.output_tokens, finish)
            self._engine.submit(pending.job)

    def _role(self, session: Session | None) -> str:
        return session.role if session is not None else self._default_role

    def _delay_s(self, session: Session | None, body: ChatBody, fault: Fault | None) -> float:
        delay_s = fault.variant * self._options.faults.slow_s if fault and fault.kind is FaultKind.slow else 0.0
        if self._latency is not None:
            draw = self._draw("latency", session, body)
            delay_s += self._latency.seconds(self._role(session), draw) * self._options.latency_scale
        return delay_s

    def _thought_tokens(self, session: Session | None, body: ChatBody, written: int) -> int:
        """Tokens of the answer with the thinking that the engine is told to add; never beyond `max_tokens`."""
        mean = self._options.engine.output_tokens
        if mean <= 0:
            return written
        drawn = int(-mean * log_of(1 - self._draw("output", session, body)))
        return max(written, min(drawn, body.max_tokens or drawn))

    def _draw(self, purpose: str, session: Session | None, body: ChatBody) -> float:
        simulation = session.simulation if session is not None else ""
        return chance(self._options.seed, purpose, simulation, self._role(session), len(body.messages))

    def _finish(self, pending: _Pending) -> None:
        exchange, metrics = pending.exchange, self._metrics
        if not exchange.open:
            return
        now = time.monotonic()
        if pending.job is not None:
            pending.cached_tokens = pending.job.cached_tokens
        metrics.prompt_tokens += pending.prompt_tokens
        metrics.cached_tokens += pending.cached_tokens
        metrics.generation_tokens += pending.output_tokens
        if self._cache is not None:
            metrics.prefix_queries += pending.prompt_tokens
            metrics.prefix_hits += pending.cached_tokens
        metrics.finished[pending.finished] += 1
        if pending.parsed is not None:
            metrics.parsed[pending.parsed] += 1
        metrics.first_token_s.add((pending.job.first_token_at if pending.job is not None else now) - pending.started)
        metrics.request_s.add(now - pending.started)
        payload = pending.payload(pending.cached_tokens)
        if pending.fault is not None and pending.fault.kind is FaultKind.cut_off:
            exchange.respond_cut(200, payload, pending.fault.one_of(len(payload)))
        else:
            exchange.respond(200, payload)

    def _ended(self, pending: _Pending, answered: bool) -> None:
        if self._engine is None:
            self._metrics.running -= 1
        elif pending.job is not None and not answered:
            self._engine.cancel(pending.job)
        if not answered:
            self._metrics.finished["abort"] += 1


def _log_spoilt(condition: str, session: Session | None) -> None:
    where = "" if session is None else f"{session.simulation}/{session.role}"
    log.info("%s: %s %s", SPOILT_REPLY, condition, where)
