"""What a configuration means before anything runs; `run`, `doctor` and `serve` all ask `plan_run`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tau2_fleet.batch.schedule import Schedule, make_schedule
from tau2_fleet.benchmark import prompts
from tau2_fleet.benchmark.domains import Domain, load_domain
from tau2_fleet.config import Config, agent_model, task_ids_of
from tau2_fleet.errors import UserError, writing
from tau2_fleet.fleet.kinds.simulated import Simulated
from tau2_fleet.fleet.plan import PoolSpec
from tau2_fleet.fleet.pools import local_models, pool_specs
from tau2_fleet.llm.settings import ModelSettings, Provider
from tau2_fleet.llm.types import ChatModel
from tau2_fleet.record.atomic import replaced
from tau2_fleet.run.selection import Selection, select_tasks
from tau2_fleet.simserver.scripts import script_file
from tau2_fleet.simulation.conversation import Rules
from tau2_fleet.simulation.domain_context import SimulationSettings
from tau2_fleet.simulation.model_clients import choose_roles, expert_cards
from tau2_fleet.simulation.roles import Roles

if TYPE_CHECKING:
    from tau2.data_model.tasks import Task


@dataclass(frozen=True, slots=True)
class RunPlan:
    """All that one run is to do."""

    config: Config
    benchmark: Mapping[str, Domain]
    """The chosen domains by name."""
    selection: Selection
    schedule: Schedule
    """Every simulation, those included that an earlier attempt has finished."""
    models: Roles[ModelSettings]
    """Those that this run can call; the judge only when some task has something for it."""

    @property
    def pools(self) -> list[PoolSpec]:
        """The pools of servers, in the order of their ports.

        Raises:
            UserError: a pool's model or key is missing, or two models want one pool to be different.
        """
        simulated = self.models.agent.provider is Provider.simulated
        user_has_tools = any(domain.has_user_tools for domain in self.benchmark.values())
        others = local_models(self.models.by_name(), user_has_tools=user_has_tools)
        agent = self.config.agent
        return pool_specs(
            self.config.server,
            agent.model,
            simulated,
            others,
            agent_sends_seed=agent.sends_seed,
            agent_thinking=agent.thinking_history,
        )

    @property
    def digests(self) -> dict[str, dict[str, str]]:
        """SHA-256 of the official prompts and of each domain's data files: what results depend on beside the keys.

        Raises:
            UserError: a domain's data cannot be read.
        """
        found = {"prompts": prompts.digests()}
        for name, domain in self.benchmark.items():
            found[name] = dict(domain.digests)
            tasks_file = Path(self.config.domain[name].tasks).expanduser()
            if tasks_file.is_file():
                found[name][str(tasks_file)] = hashlib.sha256(tasks_file.read_bytes()).hexdigest()
        return found

    def simulation_settings(
        self, run_id: str, attempt: int, clients: Roles[ChatModel], models: Roles[ModelSettings]
    ) -> SimulationSettings:
        """How every simulation is played; `models` are those of the plan under the names that their servers gave."""
        config = self.config
        return SimulationSettings(
            run_id=run_id,
            attempt=attempt,
            clients=clients,
            rules=Rules(
                max_steps=config.max_steps,
                max_errors=config.max_errors,
                validate_communication=config.validate_communication,
                stop_tokens=prompts.STOP_TOKENS,
                solo_stop=prompts.solo_stop()[1],
            ),
            mode=config.agent.mode,
            expert_cards=expert_cards(config.experts, models.experts),
            hide_transfer_tool=config.experts.hide_transfer_tool,
            policy_edit=config.experts.policy_edit,
            strip_message_tags=config.agent.strip_message_tags,
            format_instruction=config.agent.format_instruction,
            judge_always=config.judge.always,
            simulation_timeout_s=config.limits.simulation_timeout_s,
        )


def plan_run(config: Config) -> RunPlan:
    """The plan of a configuration; reads the benchmark's data, starts and writes nothing.

    Raises:
        UserError: a domain or its data is not there, there are no tasks, one is unknown, or one needs a judge that is
            switched off.
    """
    domains = {
        name: load_domain(name, None if domain.data_dir is None else Path(domain.data_dir))
        for name, domain in config.domain.items()
    }
    selection = select_tasks(
        domains,
        {name: domain.tasks for name, domain in config.domain.items()},
        task_ids={name: task_ids_of(config, name) for name in domains},
        num_tasks=config.num_tasks,
        mode=config.agent.mode,
    )
    needing = selection.needing_judge(always=False)
    if needing and not config.judge.enabled:
        raise UserError(
            f"judge=none, but the reward of {needing[0]} needs a judge; choose one, such as judge=gpt-6.1-sol"
        )
    models = choose_roles(
        agent_model(config),
        config.agent.mode,
        config.user_llm,
        config.judge,
        config.experts,
        judged=bool(selection.needing_judge(config.judge.always)),
    )
    schedule = make_schedule(selection.tasks, seed=config.seed, num_trials=config.num_trials)
    return RunPlan(config, domains, selection, schedule, models)


def write_played_tasks(directory: Path, pools: Sequence[PoolSpec], tasks: Mapping[str, Sequence[Task]]) -> Path | None:
    """Write what simulated servers play; None where there are none among the pools.

    The file is named by its content, because servers of an earlier job may still read theirs.

    Raises:
        UserError: it cannot be written.
    """
    if Simulated() not in [spec.kind for spec in pools]:
        return None
    scripts = script_file(tasks)
    path = directory / f"tasks-{hashlib.sha256(scripts).hexdigest()[:8]}.json"
    with writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
    with replaced(path) as file:
        file.write(scripts)
    return path
