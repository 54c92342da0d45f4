"""What a configuration means before anything runs; `run`, `doctor` and `serve` all ask `plan_run`."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from tau2_fleet.agents.agent import RunContext
from tau2_fleet.batch.schedule import Schedule, make_schedule
from tau2_fleet.batch.shard import Shard
from tau2_fleet.benchmark import prompts
from tau2_fleet.benchmark.domain import Domain
from tau2_fleet.benchmark.identity import BenchmarkIdentity
from tau2_fleet.benchmark.version import BenchmarkVersion, find_version
from tau2_fleet.config import Config, agent_model, task_ids_of
from tau2_fleet.config.schema import AGENT_PROMPT_FILE, USER_PROMPT_FILE
from tau2_fleet.errors import UserError, writing
from tau2_fleet.fleet.kinds.absent import Absent
from tau2_fleet.fleet.kinds.simulated import Simulated
from tau2_fleet.fleet.pools import local_models, pool_specs
from tau2_fleet.fleet.server_kind import PoolSpec
from tau2_fleet.llm.pause import Pause
from tau2_fleet.llm.settings import ModelSettings, Provider
from tau2_fleet.llm.types import ChatModel
from tau2_fleet.record.atomic import replaced
from tau2_fleet.run.selection import Selection, select_tasks
from tau2_fleet.simserver.scripts import script_file
from tau2_fleet.simulation.conversation import Rules
from tau2_fleet.simulation.domain_context import SimulationSettings
from tau2_fleet.simulation.model_clients import choose_roles, expert_cards
from tau2_fleet.simulation.rehearsal import Implementations, Nobody, rehearse
from tau2_fleet.simulation.roles import Roles
from tau2_fleet.simulation.scaffolds import Scaffolds, find_scaffolds, opened

if TYPE_CHECKING:
    from tau2.data_model.tasks import Task


@dataclass(frozen=True)
class RunPlan:
    """All that one run is to do."""

    config: Config
    version: BenchmarkVersion
    """Which benchmark it is a run of."""
    benchmark: Mapping[str, Domain]
    """The chosen domains by name."""
    selection: Selection
    schedule: Schedule
    """Every simulation, those included that an earlier attempt has finished."""
    models: Roles[ModelSettings]
    """Those that this run can call; the judge only when some task has something for it."""
    scaffolds: Scaffolds
    """The code that plays agent and user."""
    instructions: Mapping[str, str]
    """Key to text of the prompt files that are given."""
    implementations: Implementations
    """What results call agent and user; sure once `rehearsed`."""

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
        own = {key: hashlib.sha256(text.encode()).hexdigest() for key, text in self.instructions.items()}
        found = {"prompts": prompts.digests() | self.version.text_digests() | own}
        for name, domain in self.benchmark.items():
            found[name] = dict(domain.digests)
            tasks_file = Path(self.config.domain[name].tasks).expanduser()
            if tasks_file.is_file():
                found[name][str(tasks_file)] = hashlib.sha256(tasks_file.read_bytes()).hexdigest()
        return found

    @cached_property
    def identity(self) -> BenchmarkIdentity:
        """Which benchmark its results are of, with digests of code and data."""
        return self.version.identity(self.benchmark.values())

    def simulation_settings(
        self,
        run_id: str,
        attempt: int,
        clients: Roles[ChatModel],
        models: Roles[ModelSettings],
        pause: Pause | None = None,
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
                solo_tool=prompts.solo_stop()[0],
            ),
            mode=config.agent.mode,
            scaffolds=self.scaffolds,
            agent_instructions=self.instructions.get(AGENT_PROMPT_FILE),
            user_guidelines=self.instructions.get(USER_PROMPT_FILE),
            expert_cards=expert_cards(config.experts, models.experts),
            hide_transfer_tool=config.experts.hide_transfer_tool,
            policy_edit=config.experts.policy_edit,
            strip_message_tags=config.agent.strip_message_tags,
            format_instruction=config.agent.format_instruction,
            judge_always=config.judge.always,
            simulation_timeout_s=config.limits.simulation_timeout_s,
            pause=pause or Pause(),
        )

    @asynccontextmanager
    async def opened(self, run_dir: Path) -> AsyncIterator[RunPlan]:
        """The same, ready for the simulations of a run: with what its agents share, where they share anything."""
        run = RunContext(run_dir, model_served=self.config.server.kind_name != Absent.name)
        async with opened(self.scaffolds, run) as scaffolds:
            yield replace(self, scaffolds=scaffolds)

    async def rehearsed(self) -> RunPlan:
        """The same, once agent and user could be made, where their code or a domain is somebody's own.

        Raises:
            UserError: they cannot be made, or are none.
        """
        settings = self.simulation_settings("rehearse", 0, self.models.map(lambda role, model: Nobody()), self.models)
        return replace(self, implementations=await rehearse(self.benchmark, self.selection.tasks, settings))


def plan_run(config: Config) -> RunPlan:
    """The plan of a configuration; reads the benchmark's data, starts and writes nothing.

    Raises:
        UserError: a domain or its data is not there, there are no tasks, one is unknown, or one needs a judge that is
            switched off; code of one's own or a prompt file cannot be had.
    """
    version = find_version(config.benchmark)
    domains = {
        name: version.load_domain(name, domain.data_dir, domain.path, domain.retrieval, domain.retrieval_options)
        for name, domain in config.domain.items()
    }
    scaffolds = find_scaffolds(config.agent.scaffold, config.user_llm.scaffold)
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
    schedule = make_schedule(selection.tasks, seed=config.seed, num_trials=config.num_trials).only(own_shard(config))
    names = Implementations.of(config.agent.mode)
    return RunPlan(config, version, domains, selection, schedule, models, scaffolds, _instructions(config), names)


def own_shard(config: Config) -> Shard:
    """The part of the simulations that a run with this configuration takes."""
    return Shard(config.shard.index, config.shard.count)


def _instructions(config: Config) -> dict[str, str]:
    """Key to text of the prompt files.

    Raises:
        UserError: one cannot be read, or says nothing.
    """
    files = {AGENT_PROMPT_FILE: config.agent.prompt_file, USER_PROMPT_FILE: config.user_llm.prompt_file}
    found = {}
    for key, file in files.items():
        if file is None:
            continue
        try:
            found[key] = Path(file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{key}={file}: cannot be read ({type(error).__name__})") from error
        if not found[key]:
            raise UserError(f"{key}={file}: it is empty")
    return found


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
