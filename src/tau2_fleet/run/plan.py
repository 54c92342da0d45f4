"""What a configuration means before anything runs: which domains, tasks, models and rules; `experiment.py` asks."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Mapping
from pathlib import Path

from tau2_fleet.benchmark import prompts
from tau2_fleet.benchmark.domains import Domain, load_domain
from tau2_fleet.config import Config, agent_model, task_ids_of
from tau2_fleet.errors import UserError, writing
from tau2_fleet.llm.settings import ModelSettings
from tau2_fleet.llm.types import ChatModel
from tau2_fleet.run.selection import Selection, select_tasks
from tau2_fleet.simserver.scripts import write_script_file
from tau2_fleet.simulation.conversation import Rules
from tau2_fleet.simulation.domain_context import SimulationSettings
from tau2_fleet.simulation.model_clients import choose_roles, expert_cards
from tau2_fleet.simulation.roles import Roles

log = logging.getLogger(__name__)


def open_domains(config: Config) -> dict[str, Domain]:
    """The selected domains by name.

    Raises:
        UserError: a domain or its data is not there.
    """
    return {
        name: load_domain(name, None if domain.data_dir is None else Path(domain.data_dir))
        for name, domain in config.domain.items()
    }


def chosen_tasks(config: Config, domains: Mapping[str, Domain]) -> Selection:
    """The tasks to run.

    Raises:
        UserError: there are none, one is unknown, or one needs a judge that is switched off.
    """
    selection = select_tasks(
        domains,
        {name: domain.tasks for name, domain in config.domain.items()},
        task_ids={name: task_ids_of(config, name) for name in domains},
        num_tasks=config.num_tasks,
        mode=config.agent.mode,
    )
    if selection.left_out:
        log.warning(
            "agent.mode=%s cannot play %d of the chosen tasks; they are left out (summary.json lists them)",
            config.agent.mode,
            len(selection.left_out),
        )
    needing = selection.needing_judge(always=False)
    if needing and not config.judge.enabled:
        raise UserError(
            f"judge=none, but the reward of {needing[0]} needs a judge; choose one, such as judge=gpt-6.1-sol"
        )
    return selection


def chosen_models(config: Config, selection: Selection) -> Roles[ModelSettings]:
    """The models that this run can call; the judge only when some task has something for it."""
    judged = bool(selection.needing_judge(config.judge.always))
    return choose_roles(
        agent_model(config), config.agent.mode, config.user_llm, config.judge, config.experts, judged=judged
    )


def simulation_settings(
    config: Config, run_id: str, attempt: int, clients: Roles[ChatModel], roles: Roles[ModelSettings]
) -> SimulationSettings:
    """How every simulation is played."""
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
        expert_cards=expert_cards(config.experts, roles.experts),
        hide_transfer_tool=config.experts.hide_transfer_tool,
        policy_edit=config.experts.policy_edit,
        strip_message_tags=config.agent.strip_message_tags,
        format_instruction=config.agent.format_instruction,
        judge_always=config.judge.always,
        simulation_timeout_s=config.limits.simulation_timeout_s,
    )


def write_tasks_file(directory: Path, selection: Selection) -> Path:
    """What simulated servers play; named by its content, because servers of an earlier job may still read theirs.

    Raises:
        UserError: it cannot be written.
    """
    part = directory / f".tasks-{time.monotonic_ns()}.json"
    with writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
        write_script_file(part, selection.tasks)
        digest = hashlib.sha256(part.read_bytes()).hexdigest()[:8]
        return part.replace(directory / f"tasks-{digest}.json")
