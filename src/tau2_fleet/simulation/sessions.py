"""The model sessions of one simulation: opened as its roles need them, recorded and closed together."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import quote

from tau2_fleet.llm.call_log import CallLog
from tau2_fleet.llm.session import ModelSession
from tau2_fleet.simulation.domain_context import prompt_digest

if TYPE_CHECKING:
    from tau2_fleet.llm.types import ChatMessage, ChatModel, ToolSet
    from tau2_fleet.record.line import SimulationKey

PromptSink = Callable[[str, str], None]
"""Takes a prompt's digest and text, for `prompts.jsonl`."""


class Sessions:
    """One simulation's sessions, all in one log of calls."""

    def __init__(self, run_id: str, key: SimulationKey, seed: int, deadline: float | None) -> None:
        """`deadline` is the `time.monotonic()` at which every call must be over."""
        self.key = key
        self.seed = seed
        self.calls = CallLog()
        self._prefix = f"{run_id}/{key.domain}/{quote(key.task_id, safe='')}/{key.trial}/"
        self._deadline = deadline
        self._open: list[ModelSession] = []

    def open(
        self,
        role: str,
        model: ChatModel,
        system: ChatMessage,
        tools: ToolSet | None = None,
        tool_choice: str | None = None,
    ) -> ModelSession:
        """A session for this role (the last part of its id)."""
        session = ModelSession(
            role=role,
            model=model,
            session_id=self._prefix + role,
            system=system,
            tools=tools,
            seed=self.seed,
            calls=self.calls,
            deadline=self._deadline,
            tool_choice=tool_choice,
        )
        self._open.append(session)
        return session

    def held_up(self, lag_s: float) -> None:
        """The event loop stood still for so long: the simulation's time did, too."""
        if self._deadline is not None:
            self._deadline += lag_s
        for session in self._open:
            session.deadline = self._deadline

    def prompts(self, keep: PromptSink) -> dict[str, str]:
        """Role to the digest of its system prompt as it is now; the texts go to `keep`."""
        digests = {}
        for session in self._open:
            if session.system is not None:
                text = session.system.content or ""
                digests[session.role] = digest = prompt_digest(text)
                keep(digest, text)
        return digests

    def offered_tools(self, keep: PromptSink) -> dict[str, str]:
        """Role to the digest of its tools as they are now; their schemas, as JSON text, go to `keep`."""
        digests = {}
        for session in self._open:
            if session.tools is not None:
                text = _tools_text(session.tools.encoded)
                digests[session.role] = digest = prompt_digest(text)
                keep(digest, text)
        return digests

    def close(self) -> None:
        """Let go of what the models hold of them."""
        for session in self._open:
            session.model.end_session(session.session_id)


@lru_cache(maxsize=64)
def _tools_text(encoded: bytes) -> str:
    """One object for each set of tools: its digest is remembered, too."""
    return encoded.decode("utf-8", "replace")
