"""The closing words of a run on its replies: conditions that matter, reasons of errors, what experts did."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tau2_fleet.display.console import neutralise
from tau2_fleet.evaluation.replies import RunReplies
from tau2_fleet.llm.conditions import Condition

_REASONS = 8
_ENOUGH_SIMULATIONS = 20
_MOST = 0.5
_EXPERT_KEYS = "experts.policy_edit, experts.hide_transfer_tool, agent.format_instruction"


def as_dict(replies: RunReplies) -> dict[str, Any]:
    """The part of `summary.json` that is about replies."""
    return {
        "replies": replies.counts(),
        "error_reasons": [{"reason": reason, "simulations": count} for reason, count in replies.reasons],
        "experts": {
            name: {
                "calls": use.calls,
                "failures": use.failures,
                "turns": use.turns,
                "cost_usd": use.cost_usd,
                "time_s": use.time_s,
            }
            for name, use in replies.experts.items()
        },
        "transferred": replies.transferred,
    }


def tell(replies: RunReplies, console: Console, *, experts_on: bool) -> None:
    """Print what is worth knowing; nothing for a calm run without experts."""
    _tell_conditions(replies, console)
    if replies.reasons:
        console.print("errors:")
        for reason, count in replies.reasons[:_REASONS]:
            console.print(f"  {count} × {neutralise(' '.join(reason.split()))}", markup=False, soft_wrap=True)
        if len(replies.reasons) > _REASONS:
            console.print(f"  and {len(replies.reasons) - _REASONS} other reasons (summary.json)", markup=False)
    if experts_on:
        _tell_experts(replies, console)


def _tell_conditions(replies: RunReplies, console: Console) -> None:
    notable = [one for one in replies.conditions if one.notable]
    if not notable:
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("replies of", "that were", "count", "share", "in simulations", "with reward 0"):
        right = heading not in ("replies of", "that were")
        table.add_column(heading, justify="right" if right else "left", no_wrap=True)
    for one in notable:
        touched = (str(one.simulations), str(one.failed_simulations))
        table.add_row(escape(one.role), escape(one.condition), str(one.count), f"{one.share:.1%}", *touched)
    console.print(table)
    if any(_of_server(one.condition) for one in notable):
        console.print("what was found is explained at its first warning in run.log, and shown at its turn by `show`")
    console.print()


def _of_server(condition: str) -> bool:
    return condition in [*Condition] and Condition(condition).of_server


def _tell_experts(replies: RunReplies, console: Console) -> None:
    for name, use in replies.experts.items():
        console.print(
            f"{name}: {use.calls} calls, {use.failures} failed, {use.turns} turns taken over, ${use.cost_usd:.2f}, "
            f"{use.time_s:.1f} s",
            markup=False,
        )
    hints = []
    if not replies.experts and replies.simulations >= _ENOUGH_SIMULATIONS:
        hints.append(f"no expert was called in {replies.simulations} simulations")
    if replies.simulations and replies.transferred > _MOST * replies.simulations:
        hints.append(f"{replies.transferred} of {replies.simulations} customers were transferred to a human agent")
    for hint in hints:
        console.print(f"[yellow]warning[/]: {hint}; the keys that matter: {_EXPERT_KEYS}", soft_wrap=True)
