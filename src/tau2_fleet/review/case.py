"""One simulation to be reviewed: its record, its task, and who could know what at which turn. Rules and prompts read
it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from tau2_fleet.analysis.causes import writes_by_name
from tau2_fleet.analysis.explain import GoldCheck, assertion_text, gold_checks
from tau2_fleet.evaluation.success import is_success
from tau2_fleet.evaluation.termination import OURS
from tau2_fleet.record.line import SimulationKey
from tau2_fleet.review.words import plain

Json = dict[str, Any]


@dataclass
class Case:
    """A simulation with all that a reviewer may know of it."""

    record: Json
    """One line of `simulations.jsonl`."""
    task: Json = field(default_factory=dict)
    """In the benchmark's form; empty where it is not known."""
    agent_tools: frozenset[str] | None = None
    """Names that the agent was offered; None: not known."""
    user_tools: frozenset[str] | None = None
    tool_types: dict[str, str] = field(default_factory=dict)
    """`read`, `write`, ... by the name of a tool; empty: by their names."""

    @property
    def key(self) -> SimulationKey:
        return SimulationKey(self.record["domain"], self.record["task_id"], self.record["trial"])

    @property
    def passed(self) -> bool:
        return is_success(float(self.record.get("reward") or 0.0))

    @property
    def ended_by_infrastructure(self) -> bool:
        """Such an ending says nothing of either party."""
        return self.record.get("termination_reason") in OURS

    @cached_property
    def messages(self) -> list[Json]:
        found: list[Json] = self.record.get("messages") or []
        return found

    @cached_property
    def gold(self) -> list[GoldCheck]:
        """The gold actions as the reward checked them, else as the task has them."""
        found = gold_checks(self.record)
        if found or self.record.get("reward_info", {}).get("action_checks") is not None:
            return found
        from tau2_fleet.analysis.explain import checks_of_actions

        criteria = self.task.get("evaluation_criteria") or {}
        return checks_of_actions(self.record, criteria.get("actions") or ())

    @cached_property
    def needed(self) -> list[GoldCheck]:
        """The gold actions on which the reward depends: those that change something, all where actions are checked."""
        return [check for check in self.gold if self._counts_actions or self.writes(check.gold.name)]

    @cached_property
    def _counts_actions(self) -> bool:
        info = self.record.get("reward_info") or {}
        criteria = self.task.get("evaluation_criteria") or {}
        return "ACTION" in (info.get("reward_basis") or criteria.get("reward_basis") or ())

    @property
    def unmet(self) -> list[GoldCheck]:
        """Needed gold actions that no call matched."""
        return [check for check in self.needed if not check.matched]

    @cached_property
    def unmet_facts(self) -> list[str]:
        """Facts to tell that were not told."""
        checks = (self.record.get("reward_info") or {}).get("communicate_checks") or ()
        return [str(check.get("info")) for check in checks if not check.get("met")]

    @property
    def outstanding(self) -> str | None:
        """Something that was needed and is not done, in a word; None: nothing of that is known."""
        if self.unmet:
            return self.unmet[0].gold.name
        if self.unmet_facts:
            return f"to hear {self.unmet_facts[0]}"
        checks = (self.record.get("reward_info") or {}).get("env_assertions") or ()
        unmet = [check for check in checks if not check.get("met")]
        return assertion_text(unmet[0]) if unmet else None

    def writes(self, name: str) -> bool:
        """Whether a tool changes a database."""
        kind = self.tool_types.get(name)
        return writes_by_name(name) if kind is None else kind == "write"

    @cached_property
    def scenario(self) -> str:
        """All that the customer knows from the start, as one text."""
        parts = [self.task.get("user_scenario"), self.task.get("ticket")]
        history = (self.task.get("initial_state") or {}).get("message_history") or ()
        return "\n".join([*_texts(parts), *_texts(list(history))])

    @cached_property
    def plain_scenario(self) -> str:
        return plain(self.scenario)

    def text(self, turn: int) -> str:
        """What a message says in words."""
        content = self.messages[turn].get("content")
        return content if isinstance(content, str) else ""

    def turns_of(self, role: str) -> Iterator[tuple[int, str]]:
        """Index and text of the texts of `assistant` or `user`, those beside tool calls left out."""
        for index, message in enumerate(self.messages):
            if message.get("role") == role and not message.get("tool_calls") and (text := self.text(index)):
                yield index, text

    def heard_by_customer(self, before: int) -> str:
        """What agent and own tools have told the customer before a turn."""
        return "\n".join(
            self.text(index)
            for index, message in enumerate(self.messages[:before])
            if (message.get("role") == "assistant" and not message.get("tool_calls"))
            or (message.get("role") == "tool" and message.get("requestor") == "user")
        )

    def seen_by_agent(self) -> str:
        """All that customer and own tools have told the agent, and what it said itself, which it knew then."""
        return "\n".join(
            self.text(index)
            for index, message in enumerate(self.messages)
            if message.get("role") in ("user", "assistant")
            or (message.get("role") == "tool" and message.get("requestor") != "user" and not message.get("error"))
        )

    def calls(self) -> Iterator[tuple[int, Json, bool]]:
        """Turn, call and whether it failed, of every tool call in order."""
        failed = {
            (message.get("id"), message.get("requestor")): bool(message.get("error"))
            for message in self.messages
            if message.get("role") == "tool"
        }
        for index, message in enumerate(self.messages):
            for call in message.get("tool_calls") or ():
                by = call.get("requestor") or message.get("role")
                yield index, {**call, "requestor": by}, failed.get((call.get("id"), by), False)


def _texts(value: Any) -> Iterator[str]:
    """Every text within a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield json.dumps(value)
