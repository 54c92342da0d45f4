"""Hears what is found in the replies of a run: warns of the first of each kind, and stops a run of spoilt replies.

`run.experiment` makes one for a run and lets it listen to its events.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tau2_fleet.llm.conditions import Condition
from tau2_fleet.llm.markup import form_of
from tau2_fleet.llm.prompt_growth import BY_SERVER
from tau2_fleet.llm.template import BESIDE_TURN
from tau2_fleet.telemetry.events import Event, LLMCall, ReplyCondition

log = logging.getLogger(__name__)

_ENOUGH_REPLIES = 20
"""Of a role, before their share says something."""
_ROLE_OF = {"llm_call": "agent", "user_sim": "user", "evaluator": "judge"}


@dataclass(frozen=True, slots=True)
class RoleServers:
    """Where a role's replies come from, and which keys say how."""

    key: str
    """What its keys begin with: `agent`, `user_llm`, `experts.expert_1.llm`."""
    parser_key: str | None = None
    """The key of its pool's tool-call parser; None: it is not our servers that answer."""
    arguments_key: str | None = None
    """The key of its pool's further arguments."""
    elsewhere: str | None = None
    """Where the servers are, if somebody else starts them: a URL or a provider's name."""

    def parser(self, form: str) -> str:
        """How to give its server another tool-call parser."""
        flag = f"--tool-call-parser{f' {form}' if form else ''}"
        if self.parser_key is None:
            return f"where {self.elsewhere or 'that server'} is started, give it {flag} with --enable-auto-tool-choice"
        looks = f"; it looks like {form}" if form else ""
        return f"set {self.parser_key} (vLLM's --tool-call-parser{looks})"

    def reasoning(self) -> str:
        """How to give its server a reasoning parser."""
        if self.arguments_key is None:
            return f"where {self.elsewhere or 'that server'} is started, give it the --reasoning-parser of the model"
        return f"set {self.arguments_key}='--reasoning-parser NAME' with the model's own"

    @property
    def server(self) -> str:
        return self.elsewhere or "its servers (servers/*.log in the run directory)"


def _history_cut(role: RoleServers, detail: str) -> str:
    context, limit = f"{role.key}.max_context_tokens", f"{role.key}.max_output_tokens"
    if detail.startswith(BY_SERVER):
        return (
            f"{role.server} drops what does not fit its context without a word: start it with a longer one (Ollama: "
            f"OLLAMA_CONTEXT_LENGTH, llama.cpp: -c), or set {context} to what it has, so that whole turns are left out"
        )
    return f"conversations outgrow the context: raise {context} as far as the server allows, or lower {limit}"


def _thinking_left(role: RoleServers, detail: str) -> str:
    if detail.startswith(BESIDE_TURN):
        return (
            f"{role.server} leaves tokens of the chat template in the text, or does not stop at the end of a turn: "
            "they are cut off, and what follows them; look at the model's generation_config.json and its "
            "chat template"
        )
    return f"thinking stands in the text, and is cut off: {role.reasoning()}"


def advice(condition: str, role: RoleServers, detail: str | None = None) -> str:
    """The likely cause of a condition and what to change."""
    limit = f"{role.key}.max_output_tokens"
    told = {
        Condition.aborted: f"{role.server} broke answers off (a restart, preemption, overload): asked again",
        Condition.error_inside: f"{role.server} answered with an error inside status 200; it is asked again",
        Condition.arguments_empty: f"a tool-call parser or gateway that writes nothing for {{}}: taken as {{}}; "
        f"{role.parser('')} if calls should have arguments",
        Condition.arguments_double: "a gateway or parser that encodes arguments twice: they are taken apart; "
        f"{role.parser('')} or update that server",
        Condition.tool_name_marked: f"a parser that leaves marks around names: they are taken off; {role.parser('')}",
        Condition.markup_left: "a tool call stayed text because the server's tool-call parser does not fit the model: "
        + role.parser(form_of(detail or "")),
        Condition.only_thinking: "all of the answer was thinking: a reasoning parser that does not fit, or a limit too "
        f"low; {role.reasoning()}, or raise {limit}",
        Condition.thinking_left: _thinking_left(role, detail or ""),
        Condition.usage_missing: f"{role.server} gives no usable token counts: tokens and cost are estimates",
        Condition.empty: f"neither text nor call came: {role.parser('')}, look at its chat template, or raise {limit}",
        Condition.arguments_malformed: "arguments that are no JSON object; the tool's own error answers them. If there "
        f"are many, {role.parser('')}",
        Condition.tool_unknown: f"a tool that was not offered; if there are many, {role.parser('')}",
        Condition.filtered: f"a content filter or refusal of {role.server}: another model, or a filter that is off",
        Condition.cut: f"answers end at their limit of tokens: raise {limit} (or {role.key}.max_context_tokens)",
        Condition.degenerate: "one cycle of characters over and over: a broken checkpoint, quantisation or chat "
        f"template, or {role.key}.temperature",
        Condition.repeated: "the same text turn after turn: the model may be too weak for its role "
        f"({role.key}.model), or its answers are cut ({limit})",
        Condition.history_cut: _history_cut(role, detail or ""),
        Condition.expert_failed: f"an expert did not take its turn; its model is at {role.key}",
    }
    return told[Condition(condition)]


class ReplyWatch:
    """Counts the conditions of a run's replies by role."""

    def __init__(
        self,
        roles: Mapping[str, RoleServers],
        stop_at: float | None = None,
        stop: Callable[[str], None] | None = None,
    ) -> None:
        """`stop` is called once, with the reason, when the share of a role's replies that its server spoilt passes
        `stop_at`; missing token counts change no conversation, and do not count for it."""
        self.counts: Counter[tuple[str, str]] = Counter()
        """(role, condition) to how often."""
        self._roles = roles
        self._stop_at = stop_at
        self._stop = stop
        self._replies: Counter[str] = Counter()
        self._spoilt: Counter[str] = Counter()
        self._counted = False
        """Whether the last reply is among the spoilt ones already."""

    def listen(self, event: Event) -> None:
        """Take one event of the run."""
        if isinstance(event, LLMCall):
            self._replies[event.expert or _ROLE_OF.get(event.type, event.type)] += 1
            self._counted = False
        elif isinstance(event, ReplyCondition):
            self._found(event)

    def _found(self, event: ReplyCondition) -> None:
        role, condition = event.role, Condition(event.condition)
        self.counts[role, condition] += 1
        if self.counts[role, condition] == 1:
            about = self._roles.get(role, RoleServers(role))
            shown = f" ({event.detail})" if event.detail else ""
            where = f" at {event.replica}" if event.replica else ""
            log.warning(
                "%s (%s)%s: first reply that is %s%s: %s",
                role, event.model, where, condition, shown, advice(condition, about, event.detail),
            )  # fmt: skip
        if condition.of_server and condition is not Condition.usage_missing and not self._counted:
            self._counted = True
            self._spoilt[role] += 1
            self._look_at_share(role)

    def _look_at_share(self, role: str) -> None:
        replies, spoilt = self._replies[role], self._spoilt[role]
        if self._stop_at is None or self._stop is None or replies < _ENOUGH_REPLIES:
            return
        if spoilt / replies > self._stop_at:
            kinds = Counter({name: n for (of, name), n in self.counts.items() if of == role})
            worst = ", ".join(f"{name} {n}" for name, n in kinds.most_common(3))
            stop, self._stop = self._stop, None
            stop(f"{spoilt} of {replies} replies of the {role} were spoilt ({worst}), more than replies.stop_at")
