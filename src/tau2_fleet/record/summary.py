"""Reads `summary.json`, which others may have edited: what is of another form than a run writes is left out, and named.

Every command that reads runs gets their summaries here, and needs no more care than for a part that is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, TypeAlias

from tau2_fleet.record.reading import SUMMARY_FILE, read_object

Json = dict[str, Any]
_NAMED = 4


@dataclass(frozen=True, slots=True)
class _Each:
    """An object of which every part is of one form."""

    form: _Form


_Form: TypeAlias = "Callable[[Any], bool] | Mapping[str, _Form] | _Each"
"""Whether a part fits, or the forms of its own parts; others of its parts are as they are."""


def read_summary(directory: Path, *, quiet: bool = False) -> Json:
    """A run's summary, or a sweep's; empty where there is none yet, or it cannot be read.

    Parts of a wrong form are named in one line on standard error, unless `quiet`, for who reads it once more.
    """
    found = read_object(directory / SUMMARY_FILE)
    wrong = list(_take_out(found, _FORMS, ""))
    if wrong and not quiet:
        from tau2_fleet.display.console import tell

        more = f" and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
        tell(
            f"{directory / SUMMARY_FILE}: of another form than a run writes, and passed over: "
            f"{', '.join(wrong[:_NAMED])}{more}",
            "note: ",
            "yellow",
        )
    return found


def _take_out(value: Json, forms: Mapping[str, _Form], prefix: str) -> Iterator[str]:
    """Take out of an object what does not fit; yields the names of what was said wrongly, not of what is null.

    A text may be null, as the source of data that are the package's is.
    """
    for name, part in list(value.items()):
        form = forms.get(name)
        if form is None:
            continue
        if part is None:
            if form is not _is_text:
                del value[name]
        elif callable(form):
            if not form(part):
                del value[name]
                yield f"{prefix}{name}"
        elif not isinstance(part, dict):
            del value[name]
            yield f"{prefix}{name}"
        else:
            inner = dict.fromkeys(part, form.form) if isinstance(form, _Each) else form
            yield from _take_out(part, inner, f"{prefix}{name}.")


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def _is_amount(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) and 0 <= value < 2**53


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _is_list_of_objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(part, dict) for part in value)


def _is_anything(value: Any) -> bool:
    return True


_FORMS: Mapping[str, _Form] = {
    "run_id": _is_text,
    "started": _is_text,
    "stopped": _is_text,
    "result_digest": _is_text,
    "exit_status": _is_count,
    "chosen_tasks": _is_count,
    "duration_s": _is_amount,
    "benchmark": {
        **dict.fromkeys(("name", "label", "scoring"), _is_text),
        "code": _Each(_is_text),
        "data": {"source": _is_text, "digest": _is_text, "domains": _Each(_is_text)},
        "changed": _Each(_is_text),
    },
    "reference": {"name": _is_text, "departures": _Each(_is_list)},
    "versions": _Each(_is_text),
    "models": _Each(_Each(_is_anything)),
    "scaffolds": _Each({"name": _is_text, "target": _is_text}),
    "digests": _Each(_Each(_is_text)),
    "inventory": _Each(_Each(_is_count)),
    "metrics": _Each({"average_reward": {"value": _is_amount}}),
    "fleet": {"replicas": _is_list_of_objects},
    "shard": _Each(_is_count),
    "jobs": _is_list_of_objects,
    "left_out": _is_list,
}
"""What the parts are that commands look at."""
