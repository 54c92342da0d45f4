"""What a run leaves beside its record, and can be made from it again: the results of each domain, the summary."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tau2_fleet.analysis.cause_shares import CauseShares
from tau2_fleet.analysis.rows import ROWS_FILE, Row, row_of, rows_file
from tau2_fleet.benchmark.domain import Domain
from tau2_fleet.config import departures, result_digest
from tau2_fleet.config.schema import AGENT_PROMPT_FILE, USER_PROMPT_FILE
from tau2_fleet.evaluation.verdicts import VERDICTS_FILE, verdicts_line
from tau2_fleet.fleet.fleet_report import FleetReport
from tau2_fleet.llm.settings import ModelSettings
from tau2_fleet.record.atomic import replaced
from tau2_fleet.record.line import encode_line
from tau2_fleet.record.reading import SUMMARY_FILE
from tau2_fleet.record.results import ResultsInfo, RoleInfo, write_results
from tau2_fleet.record.store import Store
from tau2_fleet.record.summary import read_summary
from tau2_fleet.run.outcome import RunOutcome, write_summary
from tau2_fleet.run.plan import RunPlan
from tau2_fleet.run.versions import git_commit, versions
from tau2_fleet.simulation.roles import Roles
from tau2_fleet.simulation.scaffolds import Scaffold
from tau2_fleet.simulation.settings import AgentMode

_SAMPLING = ("temperature", "top_p", "max_output_tokens", "max_context_tokens", "reasoning_effort")


@dataclass(frozen=True, slots=True)
class RunFiles:
    """The derived files of one run directory."""

    plan: RunPlan
    run_dir: Path
    store: Store
    models: Roles[ModelSettings]
    """Those of the plan under the names that their servers gave."""

    def write(self, outcome: RunOutcome, fleet: FleetReport, about: dict[str, Any]) -> dict[str, Any]:
        """Write `{domain}.json`, `simulations.csv` and `summary.json`; the summary is returned.

        Args:
            fleet: of this attempt; what was before, or what was merged, is in the summary that there is.
            about: what the summary begins with.
        """
        plan = self.plan
        causes = CauseShares()
        judged: list[bytes] = []
        with rows_file(self.run_dir / ROWS_FILE) as write_row:

            def take(row: Row) -> None:
                write_row(row)
                causes.add(row, f"{row.id}/{row.trial}")

            for name, tasks in plan.selection.tasks.items():
                info = self._results_info(plan.benchmark[name])
                as_written = map(plan.benchmark[name].as_written, tasks)
                write_results(self.run_dir / f"{name}.json", info, as_written, self._records(name, take, judged))
        if judged:
            with replaced(self.run_dir / VERDICTS_FILE) as file:
                file.writelines(judged)
        reference, departed = departures(plan.config)
        saved = read_summary(self.run_dir)
        more = {
            "benchmark": plan.identity.as_dict(),
            "reference": {"name": reference, "departures": departed | plan.identity.departures() | other_judge(plan)},
            "result_digest": result_digest(plan.config, plan.identity.beyond_keys),
            "models": {role: _described(settings) for role, settings in self.models.by_name().items()},
            "fleet": fleet.added_to(saved.get("fleet")),
            "lost_by_cause": {
                str(share.cause): {"simulations": share.simulations, "reward": share.lost, "share": share.share}
                for share in causes.shares()
            },
            "chosen_tasks": None if plan.config.task_ids_file is None else len(plan.config.task_ids or ()),
            "scaffolds": {
                "agent": _about(plan.implementations.agent, plan.scaffolds.agent),
                "user": _about(plan.implementations.user, plan.scaffolds.user),
            },
            "shard": None if plan.schedule.shard.count == 1 else asdict(plan.schedule.shard),
            "left_out": list(plan.selection.left_out),
            "versions": versions(),
            "digests": plan.digests,
        }
        more |= {"merged": saved["merged"]} if "merged" in saved else {}
        return write_summary(self.run_dir / SUMMARY_FILE, outcome, {**about, **more})

    def _records(self, domain: str, take: Callable[[Row], None], judged: list[bytes]) -> Iterator[dict[str, Any]]:
        """The domain's records for its results file, each handed to the table of all on the way."""
        for record in self.store.records(domain, self.plan.schedule.includes):
            take(row_of(record))
            line = verdicts_line(record)
            if line is not None:
                judged.append(encode_line(line))
            yield record

    def _results_info(self, domain: Domain) -> ResultsInfo:
        plan, names, agent, user = self.plan, self.plan.implementations, self.models.agent, self.models.user
        config = plan.config
        solo_policy = domain.solo_policy if config.agent.mode is AgentMode.solo else None
        return ResultsInfo(
            git_commit=git_commit(),
            num_trials=config.num_trials,
            max_steps=config.max_steps,
            max_errors=config.max_errors,
            seed=config.seed,
            agent=RoleInfo(
                names.agent, agent.model, _sampling(agent) | self._own(plan.scaffolds.agent, AGENT_PROMPT_FILE)
            ),
            user=RoleInfo(
                names.user,
                None if user is None else user.model,
                {} if user is None else _sampling(user) | self._own(plan.scaffolds.user, USER_PROMPT_FILE),
                None if user is None else plan.instructions.get(USER_PROMPT_FILE) or domain.user_guidelines,
            ),
            domain_name=domain.name,
            policy=solo_policy or domain.policy,
            benchmark=plan.identity.as_dict(),
            endings=plan.version.rules.endings,
        )

    def _own(self, scaffold: Scaffold[Any], prompt_file: str) -> dict[str, Any]:
        """What is not the benchmark's about a party, beside the name of its code."""
        digest = self.plan.digests["prompts"].get(prompt_file)
        return ({"scaffold": dict(scaffold.options)} if scaffold.options else {}) | (
            {"prompt_file": f"sha256:{digest}"} if digest else {}
        )


def other_judge(plan: RunPlan) -> dict[str, tuple[str, str]]:
    """Another judge than the one that the benchmark's own evaluator asks, where something is judged."""
    own, judge = plan.version.judge_model, plan.config.judge
    if own is None or not judge.enabled or not plan.selection.needing_judge(judge.always):
        return {}
    asked = judge.model if judge.temperature == 0 else f"{judge.model} at temperature {judge.temperature}"
    return {} if asked == own else {"benchmark.judge": (own, str(asked))}


def _about(name: str, scaffold: Scaffold[Any]) -> dict[str, Any]:
    return {"name": name, "target": scaffold.path, "options": dict(scaffold.options)}


def _described(settings: ModelSettings) -> dict[str, Any]:
    return {"provider": str(settings.provider), "model": settings.model, **_sampling(settings)}


def _sampling(settings: ModelSettings) -> dict[str, Any]:
    found = {key: getattr(settings, key) for key in _SAMPLING}
    return {key: value for key, value in found.items() if value is not None} | dict(settings.extra_body)
