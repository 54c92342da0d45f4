"""What the end of a run adds to W&B, read from the run directory: the table of simulations, histograms, files.

`tracker_process` sends it; nothing here knows wandb.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from tau2_fleet.record.line import Record, SimulationKey
from tau2_fleet.record.reading import PROMPT_FILE, RECORD_FILE, stored_lines
from tau2_fleet.regular import lines_of, open_file

COLUMNS = (
    "domain", "task_id", "trial", "seed", "reward", "termination_reason", "duration_s", "messages", "tool_calls",
    "cost_usd", "input_tokens", "output_tokens", "sub_rewards", "error",
)  # fmt: skip

_LONGEST_TRANSCRIPT = 50_000
_CONVERSATIONS = frozenset(
    {RECORD_FILE, PROMPT_FILE, "run.log", "simulations.csv", "report.html", "reviews.jsonl", "review_votes.jsonl"}
)
"""Files that hold what was said, or what errors quote of it; uploaded only with `wandb.transcripts`."""

_KEY_FILES = frozenset({"api_key"})
"""The name that `tau2-fleet serve` gives to the file with its servers' key; a `*.key` is one too."""

_DURATION_FIELDS = {"step_complete": "total_duration_ms"}


@dataclass(frozen=True, slots=True)
class WandbTable:
    """Columns and rows of simple values."""

    columns: tuple[str, ...]
    rows: list[list[Any]]


def simulations_table(run_dir: Path, transcripts: bool) -> WandbTable:
    """One row per simulation; the last record of each counts."""
    rows: dict[SimulationKey, list[Any]] = {}
    for line in stored_lines(run_dir / RECORD_FILE):
        if line.record is not None:
            rows[line.record.key] = _row(line.record, transcripts)
    columns = (*COLUMNS, "transcript") if transcripts else COLUMNS
    return WandbTable(columns, list(rows.values()))


def _row(record: Record, transcripts: bool) -> list[Any]:
    row = [
        record.domain,
        record.task_id,
        record.trial,
        record.seed,
        record.reward,
        record.termination_reason,
        record.duration_s,
        len(record.messages),
        sum(len(message.get("tool_calls") or ()) for message in record.messages),
        None if record.cost_unknown else float(sum(record.cost_by_role.values())),
        None if record.cost_unknown else record.tokens("input_tokens"),
        None if record.cost_unknown else record.tokens("output_tokens"),
        orjson.dumps(record.sub_rewards).decode(),
        record.error,
    ]
    if transcripts:
        row.append("\n".join(map(_said, record.messages))[:_LONGEST_TRANSCRIPT])
    return row


def _said(message: Mapping[str, Any]) -> str:
    calls = "".join(
        f" [{call.get('name')} {orjson.dumps(call.get('arguments')).decode()}]"
        for call in message.get("tool_calls") or ()
    )
    return f"{message.get('role')}: {message.get('content') or ''}{calls}"


def durations_ms(run_dir: Path) -> dict[str, array[float]]:
    """All durations of the profile by type of event, in milliseconds."""
    durations: dict[str, array[float]] = {}
    with open_file(run_dir / "profile.jsonl") as file:
        for line in lines_of(file):
            try:
                event = orjson.loads(line)
                kind = event["type"]
                duration = event.get(_DURATION_FIELDS.get(kind, "duration_ms"))
            except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
                continue
            if isinstance(duration, (int, float)):
                durations.setdefault(kind, array("d")).append(duration)
    return durations


def run_files(run_dir: Path, transcripts: bool, key_files: Collection[Path] = ()) -> list[Path]:
    """The run's files for its artifact: all but W&B's own, locks and keys, and conversations only when wanted.

    Args:
        key_files: those that the configuration names, resolved; they may lie in the run directory.
    """
    files = []
    for path in sorted(run_dir.rglob("*")):
        parts = path.relative_to(run_dir).parts
        if not path.is_file() or path.is_symlink() or parts[0] == "wandb" or path.name == ".lock":
            continue
        if path.name in _KEY_FILES or path.suffix in (".lock", ".key") or path.resolve() in key_files:
            continue
        if not transcripts and _holds_conversations(path, parts):
            continue
        files.append(path)
    return files


def _holds_conversations(path: Path, parts: tuple[str, ...]) -> bool:
    if parts[0] in ("servers", "report"):
        return True
    if len(parts) == 1 and path.suffix == ".json":
        return path.name not in ("summary.json", "trace.json")
    return path.name.split(".log")[0] + ".log" in _CONVERSATIONS or path.name in _CONVERSATIONS


def flat_summary(summary: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested summary as `path/to/key: value`; numbers, flags and short texts only."""
    values: dict[str, Any] = {}
    for key, value in summary.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            values.update(flat_summary(value, f"{name}/"))
        elif isinstance(value, (list, tuple)) and len(value) == 2 and all(isinstance(x, (int, float)) for x in value):
            values[f"{name}/low"], values[f"{name}/high"] = value
        elif isinstance(value, (bool, int, float)) or (isinstance(value, str) and len(value) <= 200):
            values[name] = value
    return values
