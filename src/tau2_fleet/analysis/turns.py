"""Draws a simulation in the terminal: its turns, then what its reward is made of; `tau2-fleet show` calls it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from functools import cache
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.text import Text

from tau2_fleet.analysis.explain import ComparedCall, GoldCheck, other_calls, reasons
from tau2_fleet.display.columns import Cell, cell, in_columns
from tau2_fleet.display.console import neutralise, out
from tau2_fleet.evaluation.success import is_success
from tau2_fleet.record.line import UNSEEN_CALLS
from tau2_fleet.record.overview import Json, Overview

_STYLES = {"assistant": "cyan", "user": "green", "tool": "dim"}
_NAMES = {"assistant": "agent", "user": "user"}
_RESULT_LENGTH = 300
_ARGUMENTS_LENGTH = 400
_DIFFERENCES = 20
_NEAREST = 2
_NAME_LENGTH = 60


COLUMNS_OF_OVERVIEW = ("simulation", "trial", "reward", "ended", "sub-rewards", "time", "cost")


def overview_cells(chosen: list[Overview]) -> list[list[str]]:
    """One line per simulation, ids whole, for other programs."""
    return [["  ".join(text for text, _ in cell) for cell in row] for row in _rows(chosen, whole=True)]


def overview_table(chosen: list[Overview], colours: bool) -> str:
    """The same for a terminal, where long ids are shortened; piped on, they are whole."""
    rows = _rows(chosen, whole=not out.is_terminal)
    return in_columns(COLUMNS_OF_OVERVIEW, rows, "trial reward time cost", colours)


def _rows(chosen: list[Overview], whole: bool) -> list[tuple[Cell, ...]]:
    """A row each. What many of them share, as names and endings, is made once."""

    @cache
    def named(domain: str, task_id: str) -> Cell:
        name = neutralise(f"{domain}/{task_id}")
        return cell(name if whole else _shorten(name, _NAME_LENGTH))

    ended = cache(lambda reason: cell(neutralise(reason)))
    rewarded = cache(lambda reward: cell(f"{reward:g}", "green" if is_success(reward) else "red"))
    parts = cache(_sub_rewards)
    return [
        (
            named(one.domain, one.task_id),
            cell(str(one.trial)),
            rewarded(one.reward),
            ended(one.termination_reason),
            parts(tuple(one.sub_rewards.items()), one.basis),
            cell(f"{one.duration_s:.1f} s"),
            cell("?" if one.cost_usd is None else f"${one.cost_usd:.4f}"),
        )
        for one in chosen
    ]


def _sub_rewards(parts: tuple[tuple[str, float], ...], basis: tuple[str, ...]) -> Cell:
    """Those that count, then the others in brackets."""
    counted = [part for part in parts if not basis or part[0] in basis]
    others = [part for part in parts if part not in counted]
    return (
        *((neutralise(f"{kind} {value:g}"), "green" if is_success(value) else "red") for kind, value in counted),
        *((neutralise(f"({kind} {value:g})"), "dim") for kind, value in others),
    )


def simulation(
    record: Json,
    one: Overview,
    gold: list[GoldCheck],
    *,
    turns: bool,
    full: bool,
    prompts: dict[str, str],
    task: Json | None = None,
) -> RenderableType:
    """A simulation from its heading to its verdict.

    Args:
        gold: what became of the gold actions.
        turns: False: only the heading and the verdict.
        full: True: tool results and arguments at full length.
        prompts: system prompts by role, shown before the turns.
        task: in the benchmark's form; what the customer wants of it is shown first.
    """
    parts: list[RenderableType] = [_heading(record, one)]
    if task is not None:
        parts.append(Rule(Text("what the customer wants", "bold"), align="left", style="dim"))
        parts.extend(_wishes({name: task.get(name) for name in ("user_scenario", "ticket")}))
    for role, prompt in prompts.items():
        parts.append(Rule(Text(f"system prompt of the {role}", "bold"), align="left", style="dim"))
        parts.append(Text(neutralise(prompt, keep_lines=True)))
    if turns:
        parts.append(Rule(style="dim"))
        parts.extend(_turns(record, full))
        parts.append(Rule(style="dim"))
    parts.extend(_verdict(record, one, gold))
    return Group(*parts)


def _wishes(part: Json) -> Iterator[RenderableType]:
    """The texts of a task's scenario, each under its name."""
    for name, value in part.items():
        if isinstance(value, dict):
            yield from _wishes(value)
        elif value:
            said = value if isinstance(value, str) else _json(value)
            title = (f"{name.replace('_', ' ')}: ", "dim")
            yield Padding(Text.assemble(title, neutralise(said.strip(), keep_lines=True)), (0, 0, 0, 4), expand=False)


def _heading(record: Json, one: Overview) -> Text:
    usage = record.get("usage_by_role") or {}
    cost = record.get("cost_by_role") or {}
    unseen = bool((record.get("notes") or {}).get(UNSEEN_CALLS))
    roles = ", ".join(
        f"{role} {used.get('input_tokens', 0):,} in {used.get('output_tokens', 0):,} out"
        + (f" ${cost[role]:.4f}" if cost.get(role) else "")
        for role, used in usage.items()
    )
    return Text.assemble(
        (f"{neutralise(one.name)} trial {one.trial}", "bold"),
        f"  seed {record.get('seed')}  {one.duration_s:.1f} s  {one.messages} messages",
        (f"\n{roles}" if roles else "", "dim"),
        (
            "\nthe agent may have asked models of its own: their tokens and dollars are not known" if unseen else "",
            "yellow",
        ),
    )


def _turns(record: Json, full: bool) -> Iterator[RenderableType]:
    messages = record.get("messages") or []
    begun = _time(messages[0]) if messages else None
    for message in messages:
        if message.get("role") == "tool":
            yield _result(message, full)
            continue
        yield _turn_heading(message, begun)
        found = (message.get("raw_data") or {}).get("conditions") if isinstance(message.get("raw_data"), dict) else None
        if found:
            yield Padding(Text(f"! {neutralise(', '.join(map(str, found)))}", "magenta"), (0, 0, 0, 4), expand=False)
        content = message.get("content")
        if content:
            yield Padding(Text(neutralise(content, keep_lines=True)), (0, 0, 0, 4), expand=False)
        for call in message.get("tool_calls") or ():
            shown = call_text(ComparedCall(str(call.get("name")), call.get("arguments") or {}, ""), full)
            yield Padding(Text(f"→ {shown}", "yellow"), (0, 0, 0, 4), expand=False)


def _turn_heading(message: Json, begun: datetime | None) -> Text:
    role = str(message.get("role"))
    author = (message.get("raw_data") or {}).get("author") if isinstance(message.get("raw_data"), dict) else None
    name = _NAMES.get(role, role) + (
        f" (written by {neutralise(str(author))})" if author not in (None, "agent") else ""
    )
    now = _time(message)
    offset = f" +{(now - begun).total_seconds():.1f} s" if now is not None and begun is not None else ""
    return Text.assemble(
        (f"{message.get('turn_idx', '')!s:>3} ", "dim"), (name, f"bold {_STYLES.get(role, '')}"), (offset, "dim")
    )


def _result(message: Json, full: bool) -> RenderableType:
    content = str(message.get("content") or "")
    text = neutralise(content, keep_lines=full)
    if not full:
        text = _cut(text, _RESULT_LENGTH)
    style = "red" if message.get("error") else "dim"
    return Padding(Text(f"← {text}", style), (0, 0, 0, 6), expand=False)


def call_text(call: ComparedCall, full: bool = False) -> str:
    """`name(key="value", …)` in one line."""
    arguments = ", ".join(f"{key}={_json(value)}" for key, value in call.arguments.items())
    text = neutralise(f"{call.name}({arguments})")
    return text if full else _cut(text, _ARGUMENTS_LENGTH)


def _verdict(record: Json, one: Overview, gold: list[GoldCheck]) -> Iterator[RenderableType]:
    yield Text.assemble(
        ("reward ", "bold"),
        (f"{one.reward:g}", "bold red" if one.failed else "bold green"),
        f"  ended as {one.termination_reason}  ",
        Text("  ").join(Text(*part) for part in _sub_rewards(tuple(one.sub_rewards.items()), one.basis)),
    )
    for reason in reasons(record):
        yield Padding(Text(f"because {neutralise(reason, keep_lines=True)}", "red"), (0, 0, 0, 2), expand=False)
    differences = record.get("db_diff") or []
    if differences:
        yield Text("database differences (is, instead of what the gold actions leave):", "bold")
        for difference in differences[:_DIFFERENCES]:
            yield Padding(_difference(difference), (0, 0, 0, 2), expand=False)
        if len(differences) > _DIFFERENCES:
            yield Padding(Text(f"and {len(differences) - _DIFFERENCES} more", "dim"), (0, 0, 0, 2), expand=False)
    if gold:
        yield Text("gold actions against the calls made:", "bold")
        for check in gold:
            yield Padding(_gold(check), (0, 0, 0, 2), expand=False)
    others = other_calls(record, gold)
    if others:
        shown = ", ".join(f"{name} ×{count}" if count > 1 else name for name, count in others.most_common())
        yield Text(f"other calls: {neutralise(shown)}", "dim")
    counts = [
        f"{role} {condition}{f' ×{count}' if count > 1 else ''}"
        for role, conditions in (record.get("replies") or {}).items()
        for condition, count in conditions.items()
    ]
    if counts:
        yield Text(f"replies that were not as they should be: {neutralise(', '.join(counts))}", "magenta")
    for call in record.get("calls") or ():
        for condition, detail in (call.get("details") or {}).items():
            told = f"{call.get('role')} at step {call.get('step')}: {condition}: {detail}"
            yield Padding(Text(neutralise(told), "dim"), (0, 0, 0, 2), expand=False)
    for kind, note in (record.get("notes") or {}).items():
        yield Text(neutralise(f"note: {kind}: {note}"), "dim")


def _difference(difference: Json) -> Text:
    place = f"{difference.get('table')}/{difference.get('key')}"
    field = difference.get("field")
    return Text.assemble(
        neutralise(f"{difference.get('side')} {place}{f' {field}' if field else ''}: "),
        (neutralise(str(difference.get("actual"))), "red"),
        " instead of ",
        (neutralise(str(difference.get("expected"))), "green"),
    )


def _gold(check: GoldCheck) -> Text:
    who = "" if check.gold.requestor == "assistant" else f" by the {check.gold.requestor}"
    text = Text.assemble(("✓ ", "green") if check.matched else ("✗ ", "red"), call_text(check.gold), (who, "dim"))
    if check.matched:
        return text
    if not check.nearest:
        text.append("\n    never called", "red")
    closest = sorted(check.nearest, key=lambda call: len(check.differing(call)))
    for call in closest[:_NEAREST]:
        differences = "; ".join(check.differing(call)) or "the same arguments, compared otherwise"
        failed = " (the call failed)" if call.error else ""
        text.append(f"\n    called with {neutralise(differences)}{failed}", "red")
    if len(check.nearest) > _NEAREST:
        text.append(f"\n    and {len(check.nearest) - _NEAREST} more calls of it", "dim")
    return text


def _time(message: Json) -> datetime | None:
    try:
        return datetime.fromisoformat(str(message.get("timestamp")))
    except ValueError:
        return None


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[:length]}… ({len(text):,} characters)"


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length // 2]}…{text[-(length - length // 2 - 1) :]}"
