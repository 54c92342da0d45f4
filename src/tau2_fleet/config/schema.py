"""The keys of `conf/`, each with type, default, range and meaning; Hydra checks what it composes against `Config`.

Everybody else reads one. Importing this costs milliseconds, for `--help`: Hydra is imported where it is told.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Any, Optional

from tau2_fleet.batch.settings import AUTO, MOST_IN_FLIGHT, PAID_IN_FLIGHT, Order
from tau2_fleet.benchmark.settings import BenchmarkSettings
from tau2_fleet.config.checked_files import check_files_of_hydra
from tau2_fleet.config.sources import SHIPPED
from tau2_fleet.fleet.settings import HostsSettings, ServerSettings
from tau2_fleet.key import COUNT, FROM_ZERO, POSITIVE, Range, Resume, key
from tau2_fleet.llm.settings import PAID, PriceSettings, Provider, ProvidersSettings
from tau2_fleet.simulation.settings import AgentSettings, ExpertsSettings, JudgeSettings, UserSettings
from tau2_fleet.telemetry.levels import LogLevel
from tau2_fleet.telemetry.settings import WandbSettings

AGENT_PROMPT_FILE, USER_PROMPT_FILE = PROMPT_FILES = ("agent.prompt_file", "user_llm.prompt_file")
"""Keys that name a text of one's own."""


class Section(StrEnum):
    """The headings of `--help`, in their order."""

    run = "What is run"
    agent = "The agent"
    models = "The other models"
    servers = "The servers"
    output = "Limits and output"


@dataclass
class DomainSettings:
    """Which tasks of a domain are run, and on which data."""

    tasks: str = key(
        "base", help="a task set (base, train, test, ...) or a JSON file of tasks", path=True, resume=Resume.may_grow
    )
    data_dir: Optional[str] = key(
        None,
        help="other data of the benchmark's form",
        path=True,
        shown="benchmark.data_dir",
    )
    path: Optional[str] = key(
        None, help="the folder of a domain of your own: policy.md, db.json, tasks.json, tools.py", path=True, added=True
    )
    retrieval: Optional[str] = key(
        None, help="of banking_knowledge: how its agent looks things up, such as bm25_grep", added=True
    )
    retrieval_options: dict[str, Any] = key(
        factory=dict, help="of banking_knowledge: options of that, such as {top_k: 3}", added=True
    )


@dataclass
class LimitsSettings:
    """When to stop waiting, spending, or running."""

    call_timeout_s: Optional[float] = key(600.0, help="one model call, its retries included", range=POSITIVE)
    simulation_timeout_s: Optional[float] = key(3600.0, help="one simulation", range=POSITIVE)
    run_timeout_s: Optional[float] = key(None, help="the run", range=POSITIVE)
    outage_s: float = key(
        60.0,
        help="a refused key, model or request is tried on before the run ends",
        range=FROM_ZERO,
    )
    max_cost_usd: Optional[float] = key(
        None,
        help="of the run, or its whole sweep: what this does not pay for, a simulation or a request, is not begun",
        range=POSITIVE,
    )
    grace_s: float = key(30.0, help="for simulations in flight after the first Ctrl-C", range=FROM_ZERO)


@dataclass
class ShardSettings:
    """A part of the simulations: those of its hash; `tau2-fleet merge` puts the parts together."""

    index: int = key(0, help="which part, from 0: $SLURM_ARRAY_TASK_ID", range=FROM_ZERO, resume=Resume.may_grow)
    count: int = key(1, help="how many parts there are", range=Range(1, 10_000), resume=Resume.may_grow)


@dataclass
class RepliesSettings:
    """What to do about replies that servers spoil."""

    stop_at: Optional[float] = key(
        None,
        help="end the run once more than this share of a role's replies was spoilt by its server; null: never",
        range=Range(0, 1),
    )


@dataclass
class Config:
    """One run, said in full."""

    agent: AgentSettings = key(factory=AgentSettings, help="the model under test", section=Section.agent)
    domain: dict[str, DomainSettings] = key(
        factory=dict,
        help="which domains, in this order: retail, 'domain=[retail,airline]'",
        section=Section.run,
        resume=Resume.may_grow,
    )
    benchmark: BenchmarkSettings = key(
        factory=BenchmarkSettings, help="which benchmark, on which data, scored how", section=Section.run
    )
    server: ServerSettings = key(
        factory=ServerSettings, help="the agent's servers", section=Section.servers, resume=Resume.may_differ
    )
    hosts: HostsSettings = key(
        factory=HostsSettings,
        help="the machines that servers run on",
        section=Section.servers,
        resume=Resume.may_differ,
        added=True,
    )
    user_llm: UserSettings = key(factory=UserSettings, help="who plays the customer", section=Section.models)
    judge: JudgeSettings = key(
        factory=JudgeSettings, help="who grades natural-language assertions", section=Section.models
    )
    experts: ExpertsSettings = key(
        factory=ExpertsSettings, help="to whom the agent can hand a turn", section=Section.models
    )
    providers: ProvidersSettings = key(
        factory=ProvidersSettings,
        help="how hard paid providers may be asked",
        section=Section.models,
        resume=Resume.may_differ,
    )
    limits: LimitsSettings = key(
        factory=LimitsSettings,
        help="when to stop waiting, spending, running; seconds and USD, null: never",
        section=Section.output,
        resume=Resume.may_differ,
    )
    replies: RepliesSettings = key(
        factory=RepliesSettings,
        help="what to do about replies that servers spoil",
        section=Section.output,
        resume=Resume.may_differ,
    )
    wandb: WandbSettings = key(
        factory=WandbSettings, help="the W&B run", section=Section.output, resume=Resume.may_differ, packed=True
    )
    max_steps: int = key(200, help="a conversation's limit of steps", range=COUNT)
    max_errors: int = key(10, help="a conversation's limit of failed tool calls", range=COUNT)
    validate_communication: bool = key(False, help="end a conversation at a message with both text and tool calls")
    num_trials: int = key(1, help="repetitions of each task", range=Range(1, 10_000), resume=Resume.may_grow)
    num_tasks: Optional[int] = key(
        None, help="the first so many tasks of each domain; null: all", range=COUNT, resume=Resume.may_grow
    )
    task_ids: Optional[list[str]] = key(
        None,
        help="these only: '[5,7]', or '[retail/5,airline/7]' with several domains; null: all",
        resume=Resume.may_grow,
    )
    task_ids_file: Optional[str] = key(
        None,
        help="a file that names them, one domain/id a line, as show --ids prints them",
        path=True,
        resume=Resume.may_differ,
    )
    shard: ShardSettings = key(
        factory=ShardSettings,
        help="run a part only; max_concurrency and limits.max_cost_usd are those of all parts, which share them",
        resume=Resume.may_grow,
    )
    shards: int = key(
        1,
        help="processes that play the simulations of this run, over one fleet; one is enough for some 5,000 in flight",
        range=Range(1, 256),
        resume=Resume.may_differ,
    )
    max_concurrency: Any = key(
        AUTO,
        help="simulations in flight over all domains; auto: as many as the servers can hold",
        range=Range(1, 100_000),
        among=(AUTO,),
        resume=Resume.may_differ,
    )
    schedule: Order = key(
        Order.longest,
        help="which simulations begin first: longest (as earlier runs, or gold actions, tell) or as_listed",
        resume=Resume.may_differ,
    )
    seed: int = key(300, help="from which the trials' seeds are drawn", range=FROM_ZERO)
    log_level: LogLevel = key(
        LogLevel.INFO,
        help="DEBUG, PROFILE, USER_JUDGE, INFO, WARNING, ERROR or CRITICAL",
        section=Section.output,
        resume=Resume.may_differ,
    )
    report: bool = key(
        True,
        help="write report.html at the end, one for a sweep: score, causes, conversations",
        section=Section.output,
        resume=Resume.may_differ,
    )
    scratch_dir: Optional[str] = key(
        None,
        help="for compile caches and all else that outlives a run; null: tau2-fleet in $XDG_CACHE_HOME or ~/.cache",
        section=Section.output,
        path=True,
        resume=Resume.may_differ,
    )
    resume: Optional[str] = key(
        None,
        help="go on in the directory of that run or sweep",
        path=True,
        resume=Resume.may_differ,
    )
    resume_force: bool = key(False, help="go on even if keys that change results differ", resume=Resume.may_differ)
    experiment_name: Optional[str] = key(
        None, help="set by the files of experiment/: which of them this run started from", resume=Resume.may_differ
    )

    @property
    def auto_concurrency(self) -> bool:
        """Whether the program finds out how many simulations may be in flight."""
        return bool(self.max_concurrency == AUTO)

    @property
    def most_in_flight(self) -> int:
        """Simulations in flight at most."""
        return self.max_concurrency if isinstance(self.max_concurrency, int) else MOST_IN_FLIGHT

    @property
    def paid_in_flight(self) -> dict[Provider, int]:
        """Requests in flight at most, by provider; one that is not there has no such limit."""
        given = {provider: getattr(self.providers, provider.value).max_in_flight for provider in PAID}
        default = PAID_IN_FLIGHT if self.auto_concurrency else None
        return {provider: most for provider, set_to in given.items() if (most := set_to or default) is not None}


_OWN_DOMAIN = re.compile(r"\+{0,2}domain\.([^.=]+)\.path=")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")

SCHEMA_NAME = "schema"
"""The name under which `conf/config.yaml` takes `Config` into its defaults list."""


def flat(settings: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted keys and plain values of a settings dataclass; a missing part is one key with None."""
    if dataclasses.is_dataclass(settings):
        items = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    elif prefix == "domain.":
        items = settings
    else:
        return {prefix[:-1]: settings.value if isinstance(settings, Enum) else settings}
    return {key: leaf for name, value in items.items() for key, leaf in flat(value, f"{prefix}{name}.").items()}


def schema(own_domains: Iterable[str] = ()) -> Config:
    """The configuration as Hydra is to know it: prices can be set key by key, and these domains by their `path`.

    Hydra cannot set a key of a group that is null or not there, which would put them out of reach of the command
    line; `unchecked_config` takes them away again where they stay unset.
    """
    from omegaconf import MISSING

    config = Config()
    for model in (config.agent, config.user_llm, config.judge):
        model.price = PriceSettings(input=MISSING, output=MISSING)
    config.domain = {name: DomainSettings(path=MISSING) for name in own_domains}
    return config


def register(arguments: Iterable[str] = ()) -> None:
    """Make the schema known to Hydra, with room for the domains that these arguments give by `domain.NAME.path=`."""
    from hydra.core.config_store import ConfigStore

    check_files_of_hydra()
    arguments = list(arguments)
    named = [found[1] for argument in arguments if (found := _OWN_DOMAIN.match(argument))]
    own = [name for name in named if name not in SHIPPED.choices("domain")]
    store = ConfigStore.instance()
    store.store(name=SCHEMA_NAME, node=schema(own), provider="tau2_fleet.config")
    for name in _custom_domains(arguments):
        about = {"tasks": DomainSettings.tasks, "data_dir": None}
        store.store(group="domain", name=name, package=f"domain.{name}", node=about, provider="tau2_fleet.config")


def _custom_domains(arguments: Iterable[str]) -> list[str]:
    """Domains that these arguments choose and that no file here describes: those of somebody's own registry."""
    settings = dict(argument.lstrip("+").partition("=")[::2] for argument in arguments)
    if "custom" not in settings.get("benchmark", ""):
        return []
    return [name for name in _NAME.findall(settings.get("domain", "")) if name not in SHIPPED.choices("domain")]
