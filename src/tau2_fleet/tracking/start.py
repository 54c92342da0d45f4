"""What a tracker is told of a run at its start: the message that `tracker` sends to its process first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tau2_fleet.telemetry.settings import WandbMode, WandbSettings

_TAG_LENGTH = 64
_NAME_LENGTH = 128


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """One run, as a tracker is to show it."""

    model: str
    """The agent's, as configured; its last path component names and tags the W&B run."""
    domains: tuple[str, ...]
    config: Mapping[str, Any]
    """The resolved configuration, by dotted keys."""
    sweep: str | None = None
    """Group of the run when `wandb.group` is null."""
    title: str = ""
    """What sets it apart from the other runs of its sweep."""
    job_type: str = "evaluation"

    @property
    def short_model(self) -> str:
        return self.model.rstrip("/").rsplit("/", 1)[-1]

    @property
    def name(self) -> str:
        """The run's name when `wandb.name` is null."""
        return f"{self.short_model} {'+'.join(self.domains)} {self.title}".rstrip()[:_NAME_LENGTH]

    @property
    def key_files(self) -> list[str]:
        """The files that the configuration says hold keys."""
        named = [value for key, value in self.config.items() if key.endswith("api_key_file") and value]
        return [str(Path(value).expanduser().resolve()) for value in named]


def first_message(
    run: TrackedRun, settings: WandbSettings, mode: WandbMode, run_dir: Path, finish_timeout_s: float
) -> dict[str, Any]:
    """All that the process must know (`RunStart` and which tracker); `mode` is the resolved one."""
    tags = dict.fromkeys([*settings.tags, run.short_model, *run.domains])
    return {
        "kind": "start",
        "sink": plain_json(settings.sink),
        "run_dir": str(run_dir.resolve()),
        "mode": str(mode),
        "project": settings.project,
        "entity": settings.entity,
        "group": settings.group or run.sweep,
        "job_type": run.job_type,
        "name": settings.name or run.name,
        "tags": [tag[:_TAG_LENGTH] for tag in tags if tag],
        "notes": settings.notes,
        "transcripts": settings.transcripts,
        "config": plain_json(run.config),
        "key_files": run.key_files,
        "finish_timeout_s": max(finish_timeout_s - 5, 1),
    }


def plain_json(value: Any) -> Any:
    """The value in JSON's types: enums as their text, paths and the like as `str`."""
    if isinstance(value, Mapping):
        return {str(key): plain_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [plain_json(item) for item in value]
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return str(value)
