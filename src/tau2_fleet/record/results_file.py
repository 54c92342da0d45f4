"""Reads results in the benchmark's forms, written by this program or another one; `rescore` asks.

The forms: one file, which may be compressed; a `results.json` with an index beside a folder `simulations/` of a file
each; a single simulation. A file that this program wrote, and a folder, are read one simulation at a time, whatever
their size.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tau2_fleet.errors import UserError
from tau2_fleet.record.atomic import replaced
from tau2_fleet.record.json_stream import object_members
from tau2_fleet.record.line import decode_line, encode_line
from tau2_fleet.record.unpacked import PACKED_ENDS, is_packed, read_unpacked
from tau2_fleet.regular import lines_of, open_file, read_whole

if TYPE_CHECKING:
    from tau2_fleet.benchmark.package import Task

SOLO_AGENT = "llm_agent_solo"
"""How the results schema names the benchmark's agent that works alone."""
_TAKEN_FOR_JSON = {
    b"(\xb5/\xfd": "compressed by zstd: unpack it first (zstd -d)",
    b"pk\x03\x04": "a zip archive: unpack it first",
    b"version https://git-lfs": "a pointer of Git LFS in place of the file: fetch it with `git lfs pull`",
    b"<!doctype": "a web page, not the file: download it anew (on GitHub its raw form)",
    b"<html": "a web page, not the file: download it anew (on GitHub its raw form)",
}
"""How files that people take for results begin, in small letters, and what they are."""
COMPRESSED = (*PACKED_ENDS, ".zst")
"""What stands behind `.json` in names of compressed results; those of the last form are told of, not read."""
_OPENING = b'"simulations": ['
"""The line after which a file of this program has a simulation a line."""
_CLOSING = b"]}"
_PARTS: dict[str, type] = {"info": dict, "tasks": list, "simulations": list}

_NEWER = frozenset({"simulation_index", "text_streaming_config", "audio_native_config", "retrieval_config"})
"""Fields that came with tau2-bench 1.0's schema."""

Simulation = dict[str, Any]
LARGE = 32 << 20
"""Bytes beyond which another program's file is read twice and piece by piece, not once and whole."""
_LARGE_PACKED = LARGE >> 4
"""The same of a compressed one."""
_LONGEST_WORD = 25
"""Characters of a number or a word of JSON, which may be cut in its middle."""
UNREADABLE = "_unreadable"
"""A key of simulations that are in no state to be scored."""


class NotJsonError(UserError):
    """A file that should be results and is no JSON."""


class OtherFormError(UserError):
    """Results, in a form that nothing here reads."""


@dataclass(frozen=True, slots=True)
class Results:
    """A file in the benchmark's results schema."""

    path: Path
    domain: str
    solo: bool
    tasks: dict[str, Task]
    """The file's own, by id."""
    head: dict[str, Any]
    """Everything but the simulations."""
    simulations: Callable[[], Iterator[Simulation]]
    """Reads the simulations one after the other; a UserError when the file is broken on the way. One of a folder that
    cannot be read has the key `UNREADABLE`, which says why."""
    unscorable: dict[str, str] = field(default_factory=dict)
    """Tasks that ask for what nothing here can check, by id, with the words for it."""
    single: bool = False
    """One simulation alone: there are no tasks in it, and perhaps no domain."""

    @property
    def form(self) -> str | None:
        """The benchmark whose schema the file is in, where that is another one than the installed package's."""
        info = self.head.get("info")
        newer = _NEWER & (self.head.keys() | (info.keys() if isinstance(info, dict) else set()))
        return "tau2-1.0.1" if newer else None

    @contextmanager
    def writer(self, target: Path) -> Iterator[Callable[[Simulation], None]]:
        """What writes the file again, to `target`, one simulation after the other.

        Raises:
            UserError: it cannot be written.
        """
        if self.single:
            with replaced(target) as file:

                def write_alone(simulation: Simulation) -> None:
                    file.write(encode_line(simulation))

                yield write_alone
            return
        with replaced(target) as file:
            head = {name: part for name, part in self.head.items() if name not in ("tasks", "simulations")}
            file.write(encode_line(head).rstrip()[:-1] + b',\n"tasks": [\n')
            for index, task in enumerate(self.head["tasks"]):
                file.write((b"," if index else b"") + encode_line(task))
            file.write(b"],\n" + _OPENING + b"\n")
            between = b""

            def write(simulation: Simulation) -> None:
                nonlocal between
                file.write(between + encode_line(simulation))
                between = b","

            yield write
            file.write(_CLOSING + b"\n")


def read_results(path: Path) -> Results:
    """Read a results file's head, and make sure of its form.

    Raises:
        UserError: it cannot be read or is of another form.
    """
    from pydantic import ValidationError

    from tau2_fleet.benchmark.package import Task
    from tau2_fleet.benchmark.raw_tasks import unknown_criteria
    from tau2_fleet.benchmark.scoring.rules import find_rules
    from tau2_fleet.benchmark.settings import DEFAULT

    raw, simulations = _read(path)
    if "messages" in raw:
        return Results(path, str(raw.get("domain") or ""), False, {}, raw, simulations, single=True)
    environment, agent = (raw["info"].get(key) for key in ("environment_info", "agent_info"))
    domain = environment.get("domain_name") if isinstance(environment, dict) else None
    if not isinstance(domain, str):
        raise _not_results(path, "no info.environment_info.domain_name in it")
    rules = find_rules(DEFAULT)
    unscorable = {
        str(task.get("id")): f"its task is judged by {unknown}, and nothing here can check that"
        for task in raw["tasks"]
        if isinstance(task, dict) and (unknown := unknown_criteria(task, rules))
    }
    try:
        tasks = {
            task.id: task
            for task in (
                Task.model_validate(one)
                for one in raw["tasks"]
                if not (isinstance(one, dict) and str(one.get("id")) in unscorable)
            )
        }
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise _not_results(path, f"a task is not of the benchmark's form: {where}: {problem['msg']}") from error
    solo = isinstance(agent, dict) and agent.get("implementation") == SOLO_AGENT
    return Results(path, domain, solo, tasks, raw, simulations, unscorable)


def _read(path: Path) -> tuple[dict[str, Any], Callable[[], Iterator[Simulation]]]:
    """The head of a file, and what reads its simulations."""
    try:
        packed = is_packed(path)
        head = None if packed else _head_of_ours(path)
        if head is not None:
            return head, lambda: _simulations_of_ours(path)
        if path.stat().st_size > (_LARGE_PACKED if packed else LARGE):
            return _checked(path, _head_of_large(path)), lambda: _simulations_of_large(path)
        raw = json.loads(read_unpacked(path))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise NotJsonError(f"{path}: {_instead_of_json(path) or _broken(error)}") from error
    if isinstance(raw, dict) and "messages" in raw and not raw.keys() & {"tasks", "simulations"}:
        return raw, lambda: iter([raw])
    folder = path.parent / "simulations"
    if isinstance(raw, dict) and isinstance(raw.get("simulation_index"), list) and folder.is_dir():
        listed = [one for one in raw["simulation_index"] if isinstance(one, dict)]
        raw = {"simulations": [], **raw}
        if not raw["simulations"]:
            return _checked(path, raw), lambda: _simulations_of_folder(folder, listed)
    raw = _checked(path, raw)
    simulations = raw.pop("simulations")
    for index, simulation in enumerate(simulations):
        if not isinstance(simulation, dict):
            raise _not_results(path, f"simulation {index} is not an object")
    return raw, lambda: iter(simulations)


def _instead_of_json(path: Path) -> str:
    """What a file is that is no JSON, and what to do; empty where it is nothing that people take for results."""
    with open_file(path) as file:
        begun = file.read(512)
    for mark, what in _TAKEN_FOR_JSON.items():
        if begun.lstrip().lower().startswith(mark):
            return what
    return "" if begun.strip() else "empty"


def _broken(error: Exception) -> str:
    """What is wrong with a text that is no JSON, in words."""
    if not isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error}"
    if error.msg == "Extra data":
        return "not JSON: it goes on behind the first value, as JSON lines do; results are one object"
    if len(error.doc) - error.pos < _LONGEST_WORD or error.msg.startswith("Unterminated"):
        return "not JSON: it breaks off at its end: a copy or download that was cut, or a run that still writes?"
    return f"not JSON: {error}"


def _head_of_large(path: Path) -> dict[str, Any]:
    """All but the simulations, which are read and let go, so that a file that is broken is known before."""
    head: dict[str, Any] = {"simulations": []}
    for name, value in object_members(path, "simulations"):
        if name != "simulations":
            head[name] = value
        elif not isinstance(value, dict):
            raise _not_results(path, "a simulation is not an object")
    return head


def _simulations_of_large(path: Path) -> Iterator[Simulation]:
    return (value for name, value in object_members(path, "simulations") if name == "simulations")


def _checked(path: Path, raw: Any) -> dict[str, Any]:
    if isinstance(raw, list) and (what := _results_in_list(raw)):
        raise OtherFormError(f"{path}: not a file in the benchmark's results schema: {what}")
    for key, kind in _PARTS.items():
        if not isinstance(raw, dict) or not isinstance(raw.get(key), kind):
            raise _not_results(path, f"no {key!r} in it")
    return dict(raw)


def _results_in_list(raw: list[Any]) -> str:
    """What results a list holds; empty where it is something else."""
    first = raw[0] if raw and isinstance(raw[0], dict) else {}
    if first.keys() >= {"traj", "reward"}:
        return "results of the first tau-bench, whose tasks and tools are other ones"
    if first.keys() >= {"messages", "termination_reason"}:
        return "simulations alone; wanted is the whole file, with 'info', 'tasks' and 'simulations'"
    return ""


def _simulations_of_folder(folder: Path, index: list[dict[str, Any]]) -> Iterator[Simulation]:
    """In the order of their files; those of the index that have none, and files that it does not name, say so."""
    named = {f"{one.get('id')}.json": one for one in index}
    there = {path.name for path in folder.glob("*.json")}
    for name in sorted(named.keys() | there):
        known = named.get(name, {"id": name.removesuffix(".json")})
        if name not in there:
            yield {**known, UNREADABLE: f"its file simulations/{name} is missing"}
            continue
        try:
            found = json.loads(read_whole(folder / name))
        except (OSError, ValueError, RecursionError) as error:
            yield {**known, UNREADABLE: f"simulations/{name} cannot be read: {error}"}
            continue
        if not isinstance(found, dict):
            yield {**known, UNREADABLE: f"simulations/{name} is not a simulation"}
        else:
            yield found if name in named else {**found, UNREADABLE: f"the index does not name simulations/{name}"}


def _head_of_ours(path: Path) -> dict[str, Any] | None:
    """The head of a file with a simulation a line; None for another one."""
    lines = []
    with open_file(path) as file:
        for line in lines_of(file):
            lines.append(line)
            if line.strip() == _OPENING:
                try:
                    head = json.loads(b"".join(lines) + _CLOSING)
                except ValueError:
                    return None
                whole = isinstance(head, dict) and all(isinstance(head.get(key), _PARTS[key]) for key in _PARTS)
                return head if whole and _ends_as_ours(path) else None
    return None


def _ends_as_ours(path: Path) -> bool:
    with open_file(path) as file:
        file.seek(max(0, path.stat().st_size - 16))
        return file.read().rstrip().endswith(b"\n" + _CLOSING)


def _simulations_of_ours(path: Path) -> Iterator[Simulation]:
    with open_file(path) as file:
        for line in lines_of(file):
            if line.strip() == _OPENING:
                break
        for index, line in enumerate(lines_of(file)):
            if line.strip() == _CLOSING:
                return
            try:
                simulation = decode_line(line.removeprefix(b","))
            except ValueError as error:
                raise UserError(f"{path}: simulation {index} is not JSON: {error}") from error
            if not isinstance(simulation, dict):
                raise _not_results(path, f"simulation {index} is not an object")
            yield simulation


def _not_results(path: Path, problem: str) -> UserError:
    return UserError(f"{path}: not a file in the benchmark's results schema: {problem}")
