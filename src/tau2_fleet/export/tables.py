"""The tables of `csv` and `parquet`: columns with their types, and the rows that a record comes to."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

from tau2_fleet.analysis.rows import Row, row_of
from tau2_fleet.llm.types import without_surrogates

Json = dict[str, Any]
Cells = list[Any]
RUN = "run"
"""The column that says which run a row is of."""
_LARGEST = 2**63


@dataclass(frozen=True, slots=True)
class ExportTable:
    """One table."""

    columns: Mapping[str, type]
    """Name to `str`, `int`, `float` or `bool`; every cell can be missing (None)."""
    rows: Callable[[Json], list[Cells]]
    """A record's rows: cells in the order of the columns."""


def _simulation_types() -> dict[str, type]:
    hints = get_type_hints(Row)
    kinds = {field.name: hints[field.name] for field in dataclasses.fields(Row)}
    return {name: _plain(kind) for name, kind in kinds.items()}


def _plain(kind: Any) -> type:
    """`float` of `float | None`."""
    found: type = next(part for part in getattr(kind, "__args__", (kind,)) if part is not type(None))
    return found


def _simulations(record: Json) -> list[Cells]:
    row = row_of(record)
    return [[_fitting(getattr(row, name), kind) for name, kind in _SIMULATION.items()]]


_KEY: dict[str, type] = {"id": str, "domain": str, "task_id": str, "trial": int}
_SIMULATION = _simulation_types()
_CALL: dict[str, type] = {
    **_KEY, "call": int, "role": str, "step": int, "model": str, "returned_model": str, "call_type": str,
    "started": float, "duration_ms": float, "queue_ms": float, "connect_ms": float, "replica": str, "attempts": int,
    "input_tokens": int, "output_tokens": int, "cached_tokens": int, "cost_usd": float, "finish_reason": str,
    "trimmed_messages": int, "conditions": str, "thinking": str, "error": str,
}  # fmt: skip
_MESSAGE: dict[str, type] = {
    **_KEY, "turn": int, "role": str, "author": str, "content": str, "tool_calls": str, "tool_call_id": str,
    "requestor": str, "error": bool, "thinking": str, "conditions": str, "timestamp": str, "cost_usd": float,
    "prompt_tokens": int, "completion_tokens": int,
}  # fmt: skip


def _calls(record: Json) -> list[Cells]:
    key, rows = _key_cells(record), []
    for index, call in enumerate(record["calls"]):
        found = {**call, **_object(call.get("usage")), "call": index, "conditions": _joined(call.get("conditions"))}
        rows.append(key + [_fitting(found.get(name), kind) for name, kind in _CALL.items() if name not in _KEY])
    return rows


def _messages(record: Json) -> list[Cells]:
    key, rows = _key_cells(record), []
    for index, message in enumerate(record["messages"]):
        about = _object(message.get("raw_data"))
        calls = message.get("tool_calls")
        found = {
            **message,
            **_object(message.get("usage")),
            "turn": index,
            "author": about.get("author"),
            "thinking": about.get("thinking"),
            "conditions": _joined(about.get("conditions")),
            "tool_calls": json.dumps(calls, ensure_ascii=False) if calls else None,
            "tool_call_id": message.get("id"),
            "cost_usd": message.get("cost"),
        }
        rows.append(key + [_fitting(found.get(name), kind) for name, kind in _MESSAGE.items() if name not in _KEY])
    return rows


def _key_cells(record: Json) -> Cells:
    found = {**record, "id": f"{record['domain']}/{record['task_id']}"}
    return [_fitting(found[name], kind) for name, kind in _KEY.items()]


def _object(value: Any) -> Json:
    return value if isinstance(value, dict) else {}


def _joined(value: Any) -> str | None:
    return " ".join(map(str, value)) if isinstance(value, list) and value else None


def _fitting(value: Any, kind: Any) -> Any:
    """A value of the column's type; None for one of another: records can hold anything where models wrote."""
    if value is None or isinstance(value, bool) is not (kind is bool):
        return None
    if kind is float and isinstance(value, int):
        return float(value) if abs(value) < _LARGEST else None
    if not isinstance(value, kind) or (kind is int and not -_LARGEST <= value < _LARGEST):
        return None
    if kind is str and not value.isascii():
        return without_surrogates(value)
    return value


TABLES = {
    "simulations": ExportTable(_SIMULATION, _simulations),
    "calls": ExportTable(_CALL, _calls),
    "messages": ExportTable(_MESSAGE, _messages),
}
