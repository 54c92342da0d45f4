"""Finds simulations in a run's `simulations.jsonl` without keeping their conversations in memory."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from tau2_fleet.errors import UserError
from tau2_fleet.evaluation.success import is_success
from tau2_fleet.record.line import UNSEEN_CALLS, Record, SimulationKey, decode_line, read_line, tokens_of
from tau2_fleet.record.reading import PROMPT_FILE, RECORD_FILE, Damage, no_run, numbered_lines, stored_line
from tau2_fleet.record.skimmed_line import SkimmedLine, skim
from tau2_fleet.regular import lines_of, open_file

_RUNS_NAMED = 8

Json = dict[str, Any]
"""A stored record or a part of one, as it was read."""


class Overview(NamedTuple):
    """One simulation in a line, and where its record stands."""

    domain: str
    task_id: str
    trial: int
    reward: float
    termination_reason: str
    sub_rewards: Mapping[str, float]
    basis: tuple[str, ...]
    """Kinds of sub-reward that count; empty where the record does not say."""
    duration_s: float
    cost_usd: float | None
    """None: it is not known."""
    input_tokens: int
    output_tokens: int
    messages: int
    error: str | None
    offset: int
    length: int

    @property
    def name(self) -> str:
        return f"{self.domain}/{self.task_id}"

    @property
    def failed(self) -> bool:
        return not is_success(self.reward)


def overviews(directory: Path, damage: Damage | None = None, *, deep: bool = True) -> list[Overview]:
    """The simulations of a run in the order of their lines; the last line of each counts.

    Args:
        damage: gets the lines that hold no record; None: they are passed over in silence.
        deep: False where conversations will not be read.

    Raises:
        UserError: the directory holds no record; one that holds runs (a sweep's) is told so.
    """
    path = directory / RECORD_FILE
    if not path.is_file():
        refuse_sweep(directory)
        raise no_run(directory)
    latest: dict[SimulationKey, Overview] = {}
    for number, offset, line in numbered_lines(path):
        found: Record | SkimmedLine | None = None if deep else skim(line)
        if found is None:
            stored = stored_line(number, offset, line, deep=deep)
            if stored is None:
                continue
            if stored.record is None:
                if damage is not None:
                    damage.add(stored)
                continue
            found = stored.record
        key = SimulationKey(found.domain, found.task_id, found.trial)
        latest.pop(key, None)
        latest[key] = _overview(found, offset, len(line))
    return list(latest.values())


def refuse_sweep(directory: Path) -> None:
    """Raises UserError for a directory that is no run's and holds some, with their names."""
    runs = sorted(str(run.parent) for depth in ("*", "*/*") for run in directory.glob(f"{depth}/{RECORD_FILE}"))
    if runs:
        more = f" and {len(runs) - _RUNS_NAMED} more" if len(runs) > _RUNS_NAMED else ""
        named = ", ".join(runs[-_RUNS_NAMED:])
        raise UserError(f"{directory} holds {len(runs)} runs; choose one: {named}{more}")


def read_record(directory: Path, overview: Overview) -> Json:
    """The whole record of a simulation."""
    with open_file(directory / RECORD_FILE) as file:
        file.seek(overview.offset)
        return read_line(file.read(overview.length)).as_dict()


def read_prompts(directory: Path, record: Json) -> dict[str, str]:
    """The system prompts of a simulation by role, as they were sent; a role whose text is not stored is left out."""
    wanted = {digest: role for role, digest in (record.get("prompts") or {}).items()}
    texts: dict[str, str] = {}
    path = directory / PROMPT_FILE
    if wanted and path.is_file():
        with suppress(OSError), open_file(path) as file:
            for line in lines_of(file):
                try:
                    prompt = decode_line(line)
                    texts[prompt["digest"]] = prompt["text"]
                except (ValueError, KeyError, TypeError):
                    continue
    return {role: texts[digest] for role, digest in (record.get("prompts") or {}).items() if digest in texts}


def choose(all_of_them: list[Overview], task: str | None, trial: int | None, failed: bool) -> list[Overview]:
    """Those that are asked for.

    Args:
        task: `retail/5`, `5` in any domain, or a part of a longer id that no task has exactly.
        trial: None: all.
        failed: only those with a reward below 1.

    Raises:
        UserError: nothing is left, with what there is.
    """
    chosen = [one for one in all_of_them if trial is None or one.trial == trial]
    if task is not None:
        exact = [one for one in chosen if task in (one.name, one.task_id)]
        part = task.lower()
        chosen = exact or [one for one in chosen if part in one.name.lower()]
        if not chosen:
            if not all_of_them:
                raise UserError(f"no simulation of {task}: the record holds none")
            known = sorted({one.name for one in all_of_them})
            shown = ", ".join(known[:6]) + (f" and {len(known) - 6} more" if len(known) > 6 else "")
            raise UserError(f"no simulation of {task}{'' if trial is None else f' trial {trial}'}; there are {shown}")
    if failed:
        chosen = [one for one in chosen if one.failed]
    return chosen


def _overview(record: Record | SkimmedLine, offset: int, length: int) -> Overview:
    info = record.reward_info
    basis = info.get("reward_basis") if isinstance(info, dict) else info.reward_basis
    return Overview(
        domain=record.domain,
        task_id=record.task_id,
        trial=record.trial,
        reward=record.reward,
        termination_reason=record.termination_reason,
        sub_rewards=record.sub_rewards,
        basis=tuple(map(str, basis)) if isinstance(basis, list) else (),
        duration_s=record.duration_s,
        cost_usd=None if record.notes.get(UNSEEN_CALLS) else sum(record.cost_by_role.values()),
        input_tokens=tokens_of(record.usage_by_role, "input_tokens"),
        output_tokens=tokens_of(record.usage_by_role, "output_tokens"),
        messages=len(record.messages),
        error=record.error,
        offset=offset,
        length=length,
    )
