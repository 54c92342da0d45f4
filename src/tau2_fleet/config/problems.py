"""What of a configuration cannot be run: values out of range, files that are not there, keys in contradiction.

`validation.validate` refuses what is found here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tau2_fleet.config import table
from tau2_fleet.config.compose import NO_TASKS
from tau2_fleet.config.models import AGENT_POOL, model_settings
from tau2_fleet.config.names import did_you_mean, nearest
from tau2_fleet.config.schema import PROMPT_FILES, Config, flat
from tau2_fleet.config.secret_values import carried_by, credential_problems
from tau2_fleet.config.sources import Sources
from tau2_fleet.config.tasks import split_task_id
from tau2_fleet.errors import UserError
from tau2_fleet.fleet.settings import SimulatedSettings
from tau2_fleet.llm.lifetime import NONE_ANNOUNCED, day
from tau2_fleet.llm.settings import Api, LifetimeSettings, ModelSettings, Provider
from tau2_fleet.simulation.settings import AgentMode

NO_SOLO = frozenset({"retail", "airline"})
"""Domains whose tasks carry no ticket to work from."""


def problems_of(config: Config, sources: Sources) -> Iterator[str]:
    """What of a configuration cannot be, each in a line or two: values out of range, rules between keys."""
    values = flat(config)
    yield from table.impossible(values)
    yield from credential_problems(config)
    yield from filter(None, (carried_by(key, value) for key, value in values.items()))
    for key in PROMPT_FILES:
        if values[key] is not None and not Path(values[key]).is_file():
            yield f"{key}={values[key]}: there is no such file"
    yield from _agent_problems(config)
    yield from _domain_problems(config, sources)
    yield from _server_problems(config)
    for key, model in model_settings(config).items():
        yield from _model_problems(key, model)
    yield from _pool_problems(config)
    yield from _shard_problems(config)
    if config.resume_force and config.resume is None:
        yield "resume_force=true: only with resume=DIR"
    if not config.wandb.project:
        yield "wandb.project: must not be empty"


def _agent_problems(config: Config) -> Iterator[str]:
    from tau2_fleet.fleet.host import make_hosts
    from tau2_fleet.fleet.routing_policy import routing_policy
    from tau2_fleet.fleet.server_kind import server_kind

    agent = config.agent
    try:
        hosts = make_hosts(config.hosts)
        # Where hosts share no files with this machine, a path of a model is theirs.
        model = agent.model if hosts.here or agent.model is None else Path(agent.model).name
        yield from server_kind(config.server.kind).problems(config.server, model)
        routing_policy(config.server.routing)
        yield from hosts.problems(config.server)
    except UserError as error:
        yield str(error)
    if agent.mode is AgentMode.solo:
        for name in config.domain:
            if name in NO_SOLO:
                yield f"agent.mode=solo: {name} has no solo mode; choose among mock, telecom, telecom-workflow"
    yield from _context_problems("agent", agent.max_output_tokens, agent.max_context_tokens)


def _context_problems(key: str, output: int | None, context: int | None) -> Iterator[str]:
    if output is not None and context is not None and output >= context:
        yield f"{key}.max_output_tokens={output}: leaves nothing of {key}.max_context_tokens={context} for the input"


def _domain_problems(config: Config, sources: Sources) -> Iterator[str]:
    there = sources.choices("domain")
    if not config.domain:
        yield f"domain: select at least one of {', '.join(there)}"
    for name, domain in config.domain.items():
        if name not in there and domain.path is None and config.benchmark.name != "custom":
            yield f"domain={name}: there is no such domain.{did_you_mean(nearest(name, there))} {NO_TASKS}"
        if domain.tasks.endswith(".json") and not Path(domain.tasks).is_file():
            yield f"domain.{name}.tasks={domain.tasks}: there is no such file"
        if domain.path is not None and not Path(domain.path).is_dir():
            yield f"domain.{name}.path={domain.path}: there is no such directory"
        if domain.data_dir is not None and not Path(domain.data_dir).is_dir():
            yield f"domain.{name}.data_dir={domain.data_dir}: there is no such directory"
    if config.task_ids is not None and not config.task_ids:
        yield "task_ids=[]: name at least one task, or leave it null for all"
    for text in config.task_ids or []:
        named, task = split_task_id(text, config.domain)
        if named is not None and named not in config.domain:
            yield f"task_ids: {text} is of the domain {named}, which is not selected (domain={_listed(config)})"
        elif named is None and len(config.domain) > 1:
            example = f"{next(iter(config.domain))}/{task}"
            yield f"task_ids: {text} could be of any of {_listed(config)}; write for example {example}"


def _shard_problems(config: Config) -> Iterator[str]:
    index, count = config.shard.index, config.shard.count
    if index >= count:
        yield f"shard.index={index}: of shard.count={count} parts the last is {count - 1}"
    if config.most_in_flight < count:
        yield f"max_concurrency={config.max_concurrency}: all {count} shards share it, and each needs at least one"


def _listed(config: Config) -> str:
    return f"[{','.join(config.domain)}]"


def _server_problems(config: Config) -> Iterator[str]:
    server = config.server
    if server.model_config is not None and not Path(server.model_config).is_file():
        yield f"server.model_config={server.model_config}: there is no such file"
    if 0 < server.start_port <= 65535 < server.start_port + server.num - 1:
        yield f"server.start_port={server.start_port}: {server.num} replicas from there pass port 65535"
    ids = server.gpu_ids
    if ids is not None and (not ids or min(ids) < 0):
        how = "wants numbers from 0 (one named twice takes two replicas), or null for all visible"
        yield f"server.gpu_ids={ids}: {how}"
    yield from _url_problems("server.endpoints", server.endpoints)
    yield from _simulated_problems(server.simulated)


def _simulated_problems(simulated: SimulatedSettings) -> Iterator[str]:
    from tau2_fleet.simserver.latency import load_profile
    from tau2_fleet.simserver.options import contradictions

    for problem in contradictions(simulated):
        yield f"server.simulated.{problem}"
    if simulated.latency:
        try:
            load_profile(simulated.latency)
        except UserError as error:
            yield f"server.simulated.latency={simulated.latency}: {error}"


def _url_problems(key: str, urls: list[str]) -> Iterator[str]:
    for url in urls:
        if not url.startswith(("http://", "https://")):
            yield f"{key}: {url} is not a URL; write http://{url}"


def _model_problems(key: str, model: ModelSettings) -> Iterator[str]:
    pool = model.pool
    if model.provider.is_pool:
        group = key.partition(".")[0]
        if pool is None:
            yield f"{key}.provider={model.provider.value}: needs a pool; start from {group}=vllm or {group}=simulated"
        elif not (model.model or pool.model or pool.endpoints or pool.model_config or pool.name == AGENT_POOL):
            yield f"{key}.model is not set: which model is to be served (or {key}.pool.name={AGENT_POOL})?"
        elif model.provider is Provider.simulated and (pool.endpoints or pool.model_config):
            yield (
                f"{key}.pool.endpoints: a simulated model is played by servers of this run; "
                f"for servers that run already choose llm@{key}=vllm"
            )
    elif not model.model:
        yield f"{key}.model is not set: give the name that {model.provider.value} knows the model by"
    if model.api == Api.responses and model.provider is not Provider.openai:
        yield f"{key}.api={model.api.value}: only provider openai speaks it, this is {model.provider.value}"
    if model.base_url is not None:
        yield from _url_problems(f"{key}.base_url", [model.base_url])
    if pool is not None:
        yield from _url_problems(f"{key}.pool.endpoints", pool.endpoints)
        if pool.model_config is not None and not Path(pool.model_config).is_file():
            yield f"{key}.pool.model_config={pool.model_config}: there is no such file"
    if model.basic_auth_env and (model.base_url is None or model.provider is not Provider.openai):
        yield f"{key}.basic_auth_env: only with {key}.base_url and provider openai, or as {key}.pool.basic_auth_env"
    yield from _context_problems(key, model.max_output_tokens, model.max_context_tokens)
    lifetime = model.lifetime or LifetimeSettings()
    for name, text in (("ends", lifetime.ends), ("looked", lifetime.looked)):
        try:
            if text is not None and (name, text) != ("ends", NONE_ANNOUNCED):
                day(text)
        except ValueError:
            words = f", or {NONE_ANNOUNCED}" if name == "ends" else ""
            yield f"{key}.lifetime.{name}={text}: must be a day such as 2026-12-11{words}"


def _pool_problems(config: Config) -> Iterator[str]:
    """The same name is the same servers, so it must stand for the same model."""
    simulated = config.server.kind_name == "simulated"
    seen: dict[str, tuple[str, bool, str | None]] = {AGENT_POOL: ("agent", simulated, config.agent.model)}
    for key, model in model_settings(config).items():
        if model.pool is None or not model.provider.is_pool:
            continue
        is_simulated, served = model.provider is Provider.simulated, model.pool.model or model.model
        first, first_simulated, first_served = seen.setdefault(model.pool.name, (key, is_simulated, served))
        if is_simulated is not first_simulated:
            yield f"{key}.pool.name={model.pool.name}: the pool of {first}, where only one of the two is simulated"
        elif not is_simulated and served and first_served and served != first_served:
            yield f"{key}.pool.name={model.pool.name}: the pool of {first}, which serves {first_served}, not {served}"
