"""Whether a run's settings and results qualify for the benchmark's leaderboard: every reason why not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from tau2_fleet.errors import UserError
from tau2_fleet.evaluation.termination import OURS
from tau2_fleet.export.runs import Json, Run
from tau2_fleet.invocation import typed

DOMAINS = ("retail", "airline", "telecom")
"""Those of the leaderboard."""
TRIALS = 4
_BENCHMARK = "tau2-0.2"
_BASE = "base"
_SETTINGS: dict[str, Any] = {
    "agent.mode": "llm",
    "agent.scaffold._target_": "tau2_fleet.agents.tool_calling.ToolCallingAgent",
    "agent.prompt_file": None,
    "agent.format_instruction": False,
    "user_llm.scaffold._target_": "tau2_fleet.users.simulated_user.SimulatedUser",
    "user_llm.prompt_file": None,
    "experts.expert_1": None,
    "experts.expert_2": None,
    "experts.expert_3": None,
    "num_tasks": None,
    "task_ids": None,
    "task_ids_file": None,
    "max_steps": 200,
    "max_errors": 10,
    "validate_communication": False,
}
"""Key to what the benchmark's own runner has; keys that a run of an earlier version lacks had no other value."""


def disqualifications(runs: list[Run]) -> Iterator[str]:
    """Why these runs, together one submission, do not qualify; nothing where they do."""
    seen: dict[str, str] = {}
    for run in runs:
        where = f"{run.directory}: "
        if not run.summary or not run.config:
            yield f"{where}it has no summary.json or .hydra/config.yaml that can be read: is the run over?"
            continue
        for reason in (*_of_settings(run.config), *_of_run(run)):
            yield where + reason
        for domain in _domains(run):
            if domain in seen:
                yield f"{where}{domain} is in {seen[domain]} too; each domain is there once"
            seen[domain] = str(run.directory)
            for reason in _of_domain(run, domain):
                yield where + reason
    if seen and not set(seen) & set(DOMAINS):
        yield f"no domain of the leaderboard ({', '.join(DOMAINS)}) is in it"


def _domains(run: Run) -> list[str]:
    return list(dict.fromkeys(key.domain for key in run.stored.keys if run.filters.holds_key(key)))


def _of_settings(config: Json) -> Iterator[str]:
    for key, wanted in _SETTINGS.items():
        found = _at(config, key, wanted)
        if found != wanted:
            told = found if isinstance(found, str | int | bool) else "set"
            yield f"{key} is {told}, and a standard submission has {_told(wanted)}"
    trials = config.get("num_trials")
    if not isinstance(trials, int) or trials < TRIALS:
        yield f"num_trials is {trials}, and {TRIALS} are wanted; a resume with num_trials={TRIALS} adds them"
    for role, key in (("agent", "server.kind"), ("user", "user_llm.provider")):
        if _at(config, key, None) == "simulated":
            yield f"the {role} is simulated ({key})"


def _of_run(run: Run) -> Iterator[str]:
    benchmark = run.benchmark
    if (benchmark.name, benchmark.scoring) != (_BENCHMARK, _BENCHMARK):
        yield f"the benchmark is {benchmark.label}; the installed package's leaderboard is of {_BENCHMARK}"
    elif benchmark.changed:
        yield f"its data are not those of the release: {', '.join(benchmark.changed)}"


def _of_domain(run: Run, domain: str) -> Iterator[str]:
    if domain not in DOMAINS:
        yield f"{domain} is no domain of the leaderboard ({', '.join(DOMAINS)}); --domain chooses others"
        return
    task_set = _at(run.config, f"domain.{domain}.tasks", _BASE)
    if task_set != _BASE:
        yield f"domain.{domain}.tasks is {task_set}, and the task set {_BASE} is wanted"
    try:
        from tau2_fleet.benchmark.domains import load_domain
        from tau2_fleet.benchmark.package import DATA_DIR

        package = load_domain(domain, DATA_DIR)
    except UserError as error:
        yield str(error)
        return
    had: Json = (run.summary.get("digests") or {}).get(domain) or {}
    if changed := [name for name, digest in package.digests.items() if had.get(name, digest) != digest]:
        yield f"{domain} was not the package's: {', '.join(changed)} differ"
    if not (run.directory / f"{domain}.json").is_file():
        yield f"there is no {domain}.json: {typed('run', f'resume={run.directory}')} writes it"
    trials = run.config.get("num_trials")
    done = Counter(key.task_id for key in run.stored.keys if key.domain == domain)
    lacking = [task for task in package.split(_BASE) or () if done[task] != trials]
    if lacking:
        yield f"{domain}: {len(lacking)} of its tasks do not have {trials} trials, such as {lacking[0][:60]}"
    if strange := set(done).difference(package.split(_BASE) or ()):
        yield f"{domain}: {len(strange)} tasks are not of the task set {_BASE}"
    ended = sum(record["termination_reason"] in OURS for record in run.records(lambda key: key.domain == domain))
    if ended:
        again = typed("run", f"resume={run.directory}")
        yield f"{domain}: {ended} simulations were ended by the infrastructure; {again} runs them again"


def _at(config: Json, key: str, default: Any) -> Any:
    found: Any = config
    for part in key.split("."):
        if not isinstance(found, dict) or part not in found:
            return default
        found = found[part]
    return found


def _told(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
