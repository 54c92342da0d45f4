"""A baseline and a candidate: sources pooled as trials of the same tasks, and whether the two may be compared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations, product
from typing import Any

from tau2_fleet.compare.sources import ResultsSource, SimulationOutcome, task_criteria
from tau2_fleet.errors import UserError

_FREE = ("seed",)
"""Result keys that may differ between the sides, beside those of the agent."""
_FIRST = ("benchmark.name", "benchmark.scoring", "benchmark.code", "benchmark.data", "benchmark.files", "benchmark")
_NAMED = 8


class NotComparable(UserError):
    """These inputs may not be put together; the message names why, and what lets them."""


@dataclass(slots=True)
class ComparedSide:
    """Sources whose simulations count as trials of the same tasks."""

    name: str
    """`baseline` or `candidate`, or a value that runs were grouped by."""
    sources: list[ResultsSource]
    trials: dict[str, list[SimulationOutcome]] = field(default_factory=dict)
    """By task, in the order of sources and trials."""

    def __post_init__(self) -> None:
        for source in self.sources:
            for outcome in sorted(source.outcomes, key=lambda one: one.trial):
                self.trials.setdefault(outcome.task, []).append(outcome)

    @property
    def label(self) -> str:
        """The models, or where there is nothing to tell, the names of the sources."""
        return ", ".join(dict.fromkeys(source.model for source in self.sources))

    @property
    def simulations(self) -> int:
        return sum(map(len, self.trials.values()))

    def link(self, outcome: SimulationOutcome, **where: Any) -> str | None:
        """Where a report shows one of its simulations."""
        source = next(source for source in self.sources if any(one is outcome for one in source.outcomes))
        return source.link(outcome.task, outcome.trial, **where)


def pooled(name: str, sources: Sequence[ResultsSource], allowed: Sequence[str] = ()) -> ComparedSide:
    """The sources as one side.

    Raises:
        NotComparable: they differ in what results depend on, their agent included, or one repeats another's trials.
    """
    if not sources:
        raise UserError(f"the {name} holds no run")
    for first, second in combinations(sources, 2):
        _refuse(f"runs of the {name} ({first.path}, {second.path})", _differences(first, second, agents=True), allowed)
    _refuse_repeated(name, sources)
    return ComparedSide(name, list(sources))


def _refuse_repeated(name: str, sources: Sequence[ResultsSource]) -> None:
    """Two runs with equal seeds are not twice as many trials."""
    seen: dict[tuple[str, int], ResultsSource] = {}
    paths = [source.path.resolve() for source in sources]
    twice = next((source.path for source, path in zip(sources, paths, strict=True) if paths.count(path) > 1), None)
    if twice is not None:
        raise NotComparable(f"{twice} is twice in the {name}: the same simulations are not twice as many trials")
    for source in sources:
        for outcome in source.outcomes:
            other = seen.get((outcome.task, outcome.seed)) if outcome.seed else None
            if other is not None:
                raise NotComparable(
                    f"{source.path} and {other.path} are both in the {name}, and have the same trial seeds "
                    f"({outcome.seed} of {outcome.task}): they repeat each other. Give other seeds, or leave one out."
                )
        seen.update(((outcome.task, outcome.seed), source) for outcome in source.outcomes)


def refuse_shared(baseline: Sequence[ResultsSource], candidate: Sequence[ResultsSource]) -> None:
    """Make sure that no run stands on both sides.

    Raises:
        NotComparable: one does.
    """
    first = {source.path.resolve() for source in baseline}
    both = [source.path for source in candidate if source.path.resolve() in first]
    if both:
        more = f" and {len(both) - 1} more" if len(both) > 1 else ""
        raise NotComparable(f"{both[0]}{more} is on both sides: a run compared with itself says nothing")


def are_copies(baseline: ComparedSide, candidate: ComparedSide) -> bool:
    """Whether one side's simulations are all among the other's, to the last figure: a run and its copy."""
    first, second = ({one for source in side.sources for one in source.outcomes} for side in (baseline, candidate))
    return first <= second or second <= first


def refuse_unlike(baseline: ComparedSide, candidate: ComparedSide, allowed: Sequence[str] = ()) -> list[str]:
    """Make sure that the sides differ only in agent, seeds and numbers of trials; what was allowed all the same.

    Raises:
        NotComparable: they differ, with the keys and both values; the benchmark's first.
    """
    differences: dict[str, tuple[Any, Any]] = {}
    for first, second in product(baseline.sources, candidate.sources):
        differences = _differences(first, second, agents=False) | differences
    differences = _in_order(differences)
    changed = _changed_tasks(baseline, candidate)
    if changed:
        told = f"{len(changed)} of the same id, such as {changed[0]}"
        differences = _in_order(differences | {"benchmark.data.tasks": (told, "others")})
    _refuse("baseline and candidate", differences, allowed)
    return [_told(key, values) for key, values in differences.items()]


def unknown_keys(baseline: ComparedSide, candidate: ComparedSide) -> list[str]:
    """Keys that only one side's files name, so that nothing says whether the other had the same."""
    first, second = baseline.sources[0], candidate.sources[0]
    if not first.keys or not second.keys:
        return []
    both = first.keys | first.benchmark, second.keys | second.benchmark
    lone = set(both[0]) ^ set(both[1])
    return sorted({key.partition(".")[0] for key in lone if not key.startswith(("agent.", "benchmark.files"))})


def _changed_tasks(baseline: ComparedSide, candidate: ComparedSide) -> list[str]:
    """Tasks whose content is not the same; looked at where a results file is among the sources."""
    if all(source.path.is_dir() for side in (baseline, candidate) for source in side.sources):
        return []
    found: set[str] = set()
    for first, second in product(*(list(map(task_criteria, side.sources)) for side in (baseline, candidate))):
        found |= {name for name in first.keys() & second.keys() if first[name] != second[name]}
    return sorted(found)


def _differences(first: ResultsSource, second: ResultsSource, *, agents: bool) -> dict[str, tuple[Any, Any]]:
    """The keys that both know with different values."""
    own, other = (source.keys | source.benchmark for source in (first, second))
    found = {key: (own[key], other[key]) for key in own if key in other and own[key] != other[key]}
    if agents and first.model != second.model:
        found["agent.model"] = first.model, second.model
    for key in first.met | second.met:
        if key in first.limits and key in second.limits and first.limits[key] != second.limits[key]:
            found[key] = first.limits[key], second.limits[key]
    kept = {
        key: values for key, values in found.items() if key not in _FREE and (agents or not key.startswith("agent."))
    }
    return _in_order(kept)


def _in_order(differences: dict[str, tuple[Any, Any]]) -> dict[str, tuple[Any, Any]]:
    """The benchmark's first."""
    return dict(sorted(differences.items(), key=lambda item: _place(item[0])))


def _place(key: str) -> tuple[int, str]:
    rank = next((rank for rank, part in enumerate(_FIRST) if key == part or key.startswith(f"{part}.")), len(_FIRST))
    return rank, key


def _refuse(what: str, differences: dict[str, tuple[Any, Any]], allowed: Sequence[str]) -> None:
    left = {key: values for key, values in differences.items() if not is_allowed(key, allowed)}
    if not left:
        return
    told = [_told(key, values) for key, values in left.items()]
    more = f" and {len(told) - _NAMED} more" if len(told) > _NAMED else ""
    groups = " ".join(f"--allow-diff {key}" for key in dict.fromkeys(_group(key) for key in left))
    raise NotComparable(
        f"{what} differ in {', '.join(told[:_NAMED])}{more}: their numbers are not of the same thing.\n"
        f"Where the difference is meant: {groups}"
    )


def is_allowed(key: str, allowed: Sequence[str]) -> bool:
    """Whether a key is one of those, or within one: `user_llm` means all of `user_llm.…`."""
    return any(key == name or key.startswith(f"{name}.") for name in allowed)


def _group(key: str) -> str:
    return key.partition(".")[0]


def _told(key: str, values: tuple[Any, Any]) -> str:
    return f"{key} ({_short(values[0])} and {_short(values[1])})"


def _short(value: Any) -> str:
    text = "null" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


@dataclass(frozen=True, slots=True)
class CommonTasks:
    """The tasks that both sides have, and those that only one has."""

    common: list[str]
    only_baseline: list[str]
    only_candidate: list[str]


def common_tasks(baseline: ComparedSide, candidate: ComparedSide, *, enough: bool) -> CommonTasks:
    """The tasks to compare, in natural order.

    Args:
        enough: go on with those that both have.

    Raises:
        NotComparable: a side lacks some and `enough` is not said, or there are none in common.
    """
    common = [task for task in baseline.trials if task in candidate.trials]
    found = CommonTasks(
        sorted(common, key=natural),
        sorted((task for task in baseline.trials if task not in candidate.trials), key=natural),
        sorted((task for task in candidate.trials if task not in baseline.trials), key=natural),
    )
    if not common:
        raise NotComparable(f"no task is on both sides: {_some(found.only_baseline)} and {_some(found.only_candidate)}")
    if (found.only_baseline or found.only_candidate) and not enough:
        raise NotComparable(
            f"the sides do not have the same tasks: {', '.join(lost(found))}.\n"
            "--common-tasks compares the rest; wait for a run that goes on, finish an incomplete one with resume=DIR"
        )
    return found


def lost(found: CommonTasks) -> list[str]:
    """What is not compared, for people."""
    told = []
    if found.only_baseline:
        told.append(f"{len(found.only_baseline)} only in the baseline ({_some(found.only_baseline)})")
    if found.only_candidate:
        told.append(f"{len(found.only_candidate)} only in the candidate ({_some(found.only_candidate)})")
    return told


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"


def natural(name: str) -> tuple[str, int, int, str]:
    """Sorts `retail/2` before `retail/10`."""
    domain, _, task = name.partition("/")
    return (domain, 0, int(task), "") if task.isdecimal() and task.isascii() else (domain, 1, 0, task)


def grouped(sources: Sequence[ResultsSource], key: str) -> Iterator[tuple[str, list[ResultsSource]]]:
    """The sources by their value of a configuration key, in the order of their first.

    Raises:
        UserError: a source does not say.
    """
    found: dict[str, list[ResultsSource]] = {}
    for source in sources:
        if key not in source.keys and key != "agent.model":
            near = ", ".join(sorted(name for name in source.keys if name.endswith(key.rpartition(".")[2]))[:3])
            raise UserError(f"--by {key}: {source.path} does not say it{f'; it has {near}' if near else ''}")
        found.setdefault(str(source.model if key == "agent.model" else source.keys[key]), []).append(source)
    yield from found.items()
