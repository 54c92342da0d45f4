"""The promises of `tau2_fleet.config`: what composes, what is refused and in which words, what may be resumed."""

from __future__ import annotations

import copy
import os
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from itertools import zip_longest
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from tau2_fleet.config import (
    Config,
    agent_model,
    compose,
    departures,
    differing_keys,
    help,
    load_config,
    model_settings,
    result_digest,
    table,
    task_ids_of,
)
from tau2_fleet.config.command_line import for_hydra, read_dotenv
from tau2_fleet.config.quoting import quoted
from tau2_fleet.config.schema import schema
from tau2_fleet.config.sources import SHIPPED, sources
from tau2_fleet.config.validation import unchecked_config
from tau2_fleet.errors import UserError
from tau2_fleet.llm.prices import PriceTable
from tau2_fleet.llm.settings import PriceSettings, Provider
from tau2_fleet.paths import CONF_DIR
from tau2_fleet.telemetry.levels import LogLevel
from tau2_fleet.telemetry.secrets import protect_environment

PRICES = PriceTable.load(CONF_DIR.parent / "data" / "prices")


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CKPT_DIR", "TAU2_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)


@cache
def composed(*overrides: str) -> DictConfig:
    """Composed by Hydra: a quarter of a second, so each only once."""
    return compose(["agent.model=org/model", *overrides])


def configure(*overrides: str) -> Config:
    return load_config(composed(*overrides))


def changed(*dotlist: str) -> Config:
    """The defaults with other values: quicker than `configure`, the same where only values differ."""
    tree = copy.deepcopy(composed())
    OmegaConf.set_struct(tree, False)
    tree.merge_with_dotlist(list(dotlist))
    return load_config(tree)


def all_choices() -> Iterator[tuple[str, ...]]:
    """Overrides that have each choice of each group at least once."""
    needed = {
        "server=external": "server.endpoints=[http://127.0.0.1:1900]",
        "hosts=ssh": "hosts.names=[gpu1]",
        "user_llm=vllm": "user_llm.model=org/user",
        "llm@user_llm=vllm": "user_llm.model=org/user",
        "judge=vllm": "judge.model=org/judge",
    }
    first = ["benchmark", "domain", "agent", "server", "hosts", "user_llm", "judge", "experts", "wandb"]
    for together in (first, ["agent/scaffold", "user_llm/scaffold"], ["llm"], ["experiment"]):
        columns = [SHIPPED.choices(group) for group in together]
        for row in zip_longest(*columns):
            keys = ["llm@user_llm" if group == "llm" else group for group in together]
            chosen = [f"{key}={choice}" for key, choice in zip(keys, row, strict=True) if choice is not None]
            yield (*chosen, *(needed[choice] for choice in chosen if choice in needed))


@pytest.mark.parametrize("overrides", list(all_choices()), ids=lambda overrides: " ".join(overrides)[:60])
def test_every_choice_of_every_group_is_a_valid_run(overrides: tuple[str, ...]) -> None:
    config = configure(*overrides)
    for model in (config.user_llm, *model_settings(config).values()):
        # A key named in the choice would also go to a `base_url` of the user's.
        assert model.api_key_env is None
        assert model.provider.is_pool or model.price or PRICES.find(model.model or ""), model.model


def test_every_group_is_tried() -> None:
    tried = {one.partition("=")[0] for overrides in all_choices() for one in overrides if "." not in one}
    assert {group for group in SHIPPED.groups() if group != "llm"} | {"llm@user_llm"} == {
        one for one in tried if "=" not in one
    }


def test_every_file_of_conf_says_first_when_to_choose_it() -> None:
    for path in CONF_DIR.rglob("*.yaml"):
        lines = [line for line in path.read_text().splitlines() if not line.startswith("# @package")]
        assert re.match(r"# \S.{20,}", lines[0]), path


def test_the_defaults_are_those_of_the_specification() -> None:
    config = configure()
    assert list(config.domain) == ["retail", "telecom", "airline"]
    sol, terra = "gpt-6.1-sol", "gpt-6.1-terra"
    assert (config.user_llm.model, config.judge.model) == (sol, sol)
    assert [expert.llm.model for expert in config.experts.members().values()] == [sol, terra, "nebius/Qwen/Qwen3-32B"]
    expert = config.experts.members()["expert-3"]
    assert expert.fallback is not None
    assert (expert.fallback.provider, expert.fallback.model) == (Provider.vllm, "Qwen/Qwen3-32B")
    agent, server, limits = config.agent, config.server, config.limits
    assert (agent.temperature, agent.top_p, agent.max_output_tokens, agent.max_context_tokens) == (1, None, 8000, 23000)
    assert (server.num, server.start_port, server.tool_call_parser, server.host) == (4, 1900, "hermes", "127.0.0.1")
    assert (config.max_steps, config.max_errors, config.num_trials, config.max_concurrency) == (200, 10, 1, "auto")
    assert (config.seed, config.log_level, config.validate_communication) == (300, LogLevel.INFO, False)
    assert (limits.call_timeout_s, limits.simulation_timeout_s, limits.run_timeout_s) == (600, 3600, None)
    assert (limits.max_cost_usd, limits.grace_s) == (None, 30)


def test_domains_are_chosen_alone_as_a_list_and_with_their_keys() -> None:
    assert list(configure("domain=retail").domain) == ["retail"]
    assert list(configure("domain=[retail,mock]").domain) == ["retail", "mock"]
    assert configure("domain.telecom.tasks=small").domain["telecom"].tasks == "small"
    chosen = configure("domain=telecom-workflow", "domain.telecom-workflow.tasks=train")
    assert chosen.domain["telecom-workflow"].tasks == "train"


def test_the_command_line_wins_over_an_experiment() -> None:
    config = configure("experiment=leaderboard", "user_llm=claude-opus", "num_trials=1", "domain=mock")
    assert (config.user_llm.provider, config.num_trials, list(config.domain)) == (Provider.anthropic, 1, ["mock"])


def test_task_ids_are_given_to_their_domains() -> None:
    config = configure("domain=[retail,airline]", "task_ids=[retail/5,airline/7,retail/5]")
    assert task_ids_of(config, "retail") == ["5"]
    assert task_ids_of(config, "airline") == ["7"]
    assert task_ids_of(configure("domain=[retail,airline]", "task_ids=[retail/5]"), "airline") == []
    assert task_ids_of(configure("domain=mock", "task_ids=[create_task_1]"), "mock") == ["create_task_1"]
    assert task_ids_of(configure(), "retail") is None
    telecom = "[mobile_data_issue]airplane_mode_on|bad_vpn[PERSONA:None]"
    assert task_ids_of(configure("domain=telecom", f"task_ids=[{quoted(telecom)}]"), "telecom") == [telecom]


def test_reasoning_models_are_sent_no_temperature_and_the_key_they_ask_for() -> None:
    for name in ("gpt-5", "gpt-5-mini", "gpt-6-luna"):
        model = configure(f"user_llm={name}").user_llm
        assert (model.temperature, model.max_tokens_key) == (None, "max_completion_tokens")
    for name in ("claude-sonnet", "claude-opus"):
        model = configure(f"user_llm={name}").user_llm
        assert (model.temperature, model.sends_seed) == (None, False)


def test_prices_are_those_of_the_specification_and_can_be_set() -> None:
    price = PRICES.find("gpt-5")
    assert price is not None
    assert (price.input, price.output, price.cached_input) == (1.25, 10.0, 0.125)
    config = configure("user_llm.price.input=3", "user_llm.price.output=15")
    assert config.user_llm.price == PriceSettings(3, 15)
    assert (config.agent.price, config.judge.price) == (None, None)


def test_the_agent_is_a_model_whose_pool_is_the_server_group() -> None:
    model = agent_model(changed("server.num=3", "server.tool_call_parser=openai", "agent.temperature=0.5"))
    assert (model.provider, model.model, model.temperature) == (Provider.vllm, "org/model", 0.5)
    assert model.pool is not None
    assert (model.pool.name, model.pool.num, model.pool.tool_call_parser) == ("agent", 3, "openai")
    assert agent_model(configure("server=simulated")).provider is Provider.simulated


def words_for_people(message: str, words: list[str]) -> None:
    assert all(word in message for word in words), message
    assert len(message.splitlines()) <= 3
    assert "Traceback" not in message


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ("llm=vllm", ["llm@user_llm=NAME"]),
        ("serve.num=3", ["serve.num", "Did you mean server.num?"]),
        ("temperature=0", ["temperature", "agent.temperature"]),
        ("+server.foo=1", ["server.foo: there is no such key"]),
        ("+foo=1", ["foo: there is no such key"]),
        ("agent.scaffold.comand=1", ["agent.scaffold.comand: ", "Did you mean agent.scaffold.command?"]),
        ("agent.scaffold.command=1", ["no such option. It is one of agent/scaffold=mcp."]),
        ("server.num=abc", ["server.num=abc", "a whole number"]),
        ("server.num=null", ["server.num=null", "a whole number"]),
        ("server.gpu_ids=0", ["server.gpu_ids=0", "[0,1]"]),
        ("log_level=profile", ["log_level=profile", "Did you mean PROFILE?"]),
        ("domain=retial", ["domain=retial", "Did you mean retail?", "airline, banking_knowledge, mock, retail"]),
        ("domain=[retail,bank]", ["domain=bank", "have no tasks"]),
        ("domain.mock.retrieval_options.top_k=3", ["added with a plus: +domain.mock.retrieval_options.top_k=..."]),
        ("domain=null", ["domain=null", "airline, banking_knowledge, mock"]),
        ("domain=[]", ["domain: select at least one"]),
        ("domain=retail domain.airline.tasks=train", ["domain.airline.tasks", "airline is not selected"]),
        ("domain.retial.tasks=train", ["there is no domain retial", "Did you mean retail?"]),
        ("domain.retail=train", ["domain.retail.tasks=train"]),
        ("user_llm=gpt5", ["user_llm=gpt5", "Did you mean gpt-5?", "user_llm.model=NAME"]),
        ("seed=1,2", ["seed=1,2: several values", "--multirun"]),
        ("domain=mock,retail", ["--multirun", "'domain=[mock,retail]'"]),
        ("wandb.notes=a,b", ["--multirun", "'wandb.notes=\"a,b\"'"]),
        ("task_ids=[retail/5", ["task_ids=[retail/5", "not understood", "'task_ids=[\"retail/5\"]'"]),
        ("hydra/launcher=joblib", ["hydra/launcher=joblib", "make install-launchers"]),
        ("task_ids=[a|b[c]:d]", ["task_ids=[a|b[c]:d]", "not understood", "'task_ids=[\"a|b[c]:d\"]'"]),
        ("seed=a=b", ["seed=a=b: seed takes a whole number"]),
        ("=3", ["=3: what stands before = is no name of a key"]),
        ("num_tasks", ["num_tasks", "key=value"]),
        ("experts=none experts.expert_1.llm.model=x", ["experts.expert_1 is null here"]),
        ("agent.extra_body.top_k=1", ["+agent.extra_body.top_k="]),
        ("agent.model=${oc.env:NOT_SET_ANYWHERE}", ["agent.model", "NOT_SET_ANYWHERE"]),
        ("agent.model=/a/${HOME}", ["agent.model: ${HOME} refers to a key", "${oc.env:HOME}", "\\${HOME}"]),
        ("server=external", ["server.endpoints", "server.model_config"]),
        ("server=external server.endpoints=[localhost:1900]", ["http://localhost:1900"]),
        ("user_llm=vllm", ["user_llm.model is not set"]),
        ("user_llm=vllm user_llm.model=a judge=vllm judge.model=b judge.pool.name=user", ["judge.pool.name=user", "a"]),
        ("user_llm=simulated user_llm.pool.name=agent", ["user_llm.pool.name=agent", "simulated"]),
        (
            "user_llm=simulated user_llm.pool.endpoints=[http://a:1]",
            ["user_llm.pool.endpoints", "played by servers of this run", "llm@user_llm=vllm"],
        ),
        ("user_llm.price.input=3", ["user_llm.price.output is not set"]),
        ("user_llm.pool.name=x", ["user_llm.pool is null here"]),
        ("server.simulated.faults.kinds=[flood]", ["server.simulated.faults.kinds", "malformed_call"]),
    ],
)
def test_what_does_not_compose_is_refused_in_words_that_name_it(overrides: str, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        load_config(compose(["agent.model=org/model", *overrides.split()]))
    words_for_people(str(caught.value), words)


@pytest.mark.parametrize(
    ("dotlist", "words"),
    [
        ("num_trials=0", ["num_trials=0: must be at least 1"]),
        ("num_tasks=0", ["num_tasks=0"]),
        ("max_concurrency=-1", ["max_concurrency=-1: must be auto, or a whole number, at least 1"]),
        ("max_concurrency=many", ["max_concurrency=many: must be auto, or a whole number"]),
        ("max_concurrency=2.5", ["max_concurrency=2.5: must be auto"]),
        ("max_concurrency=null", ["max_concurrency=None: must be auto"]),
        ("providers.openai.max_in_flight=0", ["providers.openai.max_in_flight=0: must be at least 1"]),
        ("seed=-1", ["seed=-1"]),
        ("agent.temperature=3", ["agent.temperature=3.0: must be at least 0 and at most 2"]),
        ("agent.temperature=nan", ["agent.temperature=nan"]),
        ("limits.call_timeout_s=inf", ["limits.call_timeout_s=inf"]),
        ("user_llm.top_p=0", ["user_llm.top_p=0.0: must be above 0"]),
        ("limits.max_cost_usd=0", ["limits.max_cost_usd=0.0"]),
        ("experts.expert_2.llm.max_output_tokens=0", ["experts.expert_2.llm.max_output_tokens=0"]),
        ("agent.max_output_tokens=30000", ["agent.max_output_tokens=30000", "agent.max_context_tokens=23000"]),
        ("server.simulated.faults.rate=1.5", ["server.simulated.faults.rate=1.5", "at most 1"]),
        ("server.simulated.latency=none", ["server.simulated.latency=none", "fleet-h100"]),
        (
            "server.simulated.latency=fleet-h100 server.simulated.engine.on=true",
            ["server.simulated.latency and engine.on", "one of them"],
        ),
        ("server.min_ready=5", ["server.min_ready=5", "server.num=4"]),
        ("server.start_port=65534", ["server.start_port=65534"]),
        ("server.gpu_ids=[0,-1]", ["server.gpu_ids=[0, -1]", "named twice takes two replicas"]),
        ("agent.model=null", ["agent.model is not set", "CKPT_DIR", "experiment=smoke"]),
        ("agent.model=/no/such/checkpoint", ["agent.model=/no/such/checkpoint", "no such directory"]),
        ("agent.mode=solo", ["agent.mode=solo", "retail has no solo mode"]),
        ("task_ids=[5]", ["task_ids: 5", "retail/5"]),
        ("task_ids=[mock/1]", ["task_ids: mock/1", "not selected"]),
        ("domain.retail.tasks=no/such.json", ["domain.retail.tasks=no/such.json", "no such file"]),
        ("domain.retail.data_dir=no/such", ["domain.retail.data_dir=no/such"]),
        ("server.endpoints=[http://a]", ["server=external only"]),
        ("user_llm.provider=vllm", ["user_llm.provider=vllm", "user_llm=vllm"]),
        ("user_llm.model=null", ["user_llm.model is not set"]),
        ("resume_force=true", ["resume_force=true", "resume=DIR"]),
        ("server.gpu_ids=${log_level}", ["server.gpu_ids=INFO", "takes a list"]),
        ("agent.extra_body=${seed}", ["agent.extra_body=300", "takes a mapping"]),
        ("limits=${seed}", ["limits=300", "takes a group of keys"]),
        ("domain.retail=${agent.price}", ["domain.retail", "takes a group of keys"]),
        ("server.routing=[[]]", ["server.routing=[[]]", "there is none of this name"]),
    ],
)
def test_what_cannot_be_is_refused_in_words_that_name_it(dotlist: str, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        changed(*dotlist.split())
    words_for_people(str(caught.value), words)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("agent.model", "/m/lr=1e-4"),
        ("agent.model", "~/x"),
        ("wandb.notes", "don't know"),
        ("wandb.notes", 'say "don\'t" for $5, `now`\\'),
        ("wandb.notes", "two\nlines!"),
        ("server.extra_args", "--hf-overrides {a: b}!"),
    ],
)
def test_a_value_that_is_not_understood_is_printed_as_it_must_be_typed(key: str, value: str) -> None:
    """The right argument is blamed, whatever stands beside it, and what is printed works in a shell."""
    with pytest.raises(UserError) as caught:
        compose(["num_trials=2", f"{key}={value}", "seed=5", "agent.top_p=0.5"])
    blamed, printed = str(caught.value).split(". Quote the value:\n")
    assert blamed.startswith(f"{key}={value}: not understood")
    typed = subprocess.run(["/bin/sh", "-c", f"printf %s {printed.strip()}"], capture_output=True, text=True).stdout
    part, _, last = key.partition(".")
    assert getattr(getattr(unchecked_config(compose([typed])), part), last) == os.path.expanduser(value)


@pytest.mark.parametrize(
    ("place", "argument", "said"),
    [
        ("plain", "agent.model=/m/b\udcff", r"agent\.model=/m/b\\xff: an argument is not UTF-8"),
        ("b\udcff", "seed=1", r"b\\xff: the working directory is not UTF-8"),
        ("${HOME}", "seed=1", r"\$\{HOME\}: the working directory's name holds"),
    ],
)
def test_a_name_that_cannot_be_written_down_is_one_clear_line(
    place: str, argument: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / place).mkdir()
    monkeypatch.chdir(tmp_path / place)
    with pytest.raises(UserError, match=said) as caught:
        for_hydra([argument])
    assert len(str(caught.value).encode().splitlines()) == 1


@pytest.mark.parametrize("place", ['it\'s "x"', "new\nline", "sch\u00f6n $1 `x`"])
def test_odd_names_of_places_work(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / place).mkdir()
    monkeypatch.chdir(tmp_path / place)
    chosen = f"agent.model={quoted(str(tmp_path / place))}"
    assert load_config(compose(for_hydra([chosen]))).agent.model == str(tmp_path / place)


def test_home_is_expanded_in_every_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    given = [
        "agent.model=~/m",
        "server.api_key_file='~/k'",
        "domain.retail.data_dir=~/d",
        "hydra.run.dir=~/r",
        "seed=1",
    ]
    arguments = for_hydra([*given, "wandb.notes='~'"])
    assert arguments[0] == f"agent.model='{tmp_path}/m'"
    assert arguments[3:] == [f"hydra.run.dir='{tmp_path}/r'", "seed=1", "wandb.notes='~'"]
    assert for_hydra(["agent.model=~/a,~/b"]) == [f"agent.model='{tmp_path}/a','{tmp_path}/b'"]
    config = unchecked_config(
        compose([*arguments[:3], "experts.policy_edit='~/p.yaml'", "llm@user_llm=vllm", "user_llm.model='~'"])
    )
    assert (config.agent.model, config.server.api_key_file) == (f"{tmp_path}/m", f"{tmp_path}/k")
    assert config.domain["retail"].data_dir == f"{tmp_path}/d"
    assert (config.experts.policy_edit, config.user_llm.model) == (f"{tmp_path}/p.yaml", str(tmp_path))


def test_a_users_own_folder_of_groups_is_known_to_everything(tmp_path: Path) -> None:
    for name, text in {
        "agent/terse.yaml": "# Short.\ndefaults: [default, _self_]\ntemperature: 0.3\n",
        "domain/shop.yaml": "# @package domain.shop\n# Mine.\ntasks: base\n",
        "llm/mine.yaml": "# My model.\nmodel: mine\nextra_body: {_target_: my.Thing, depth: {a: 1}}\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    for way in (["--config-dir", str(tmp_path)], [f"--config-dir={tmp_path}"], [f"hydra.searchpath=[{tmp_path}]"]):
        there = sources(way)
        config = load_config(
            compose([*way, "agent=terse", "agent.model=m", "domain=[shop,mock]", "llm@user_llm=mine"]), there
        )
        assert (config.agent.temperature, list(config.domain)) == (0.3, ["shop", "mock"])
        assert config.user_llm.extra_body == {"_target_": "my.Thing", "depth": {"a": 1}}
        for wrong, words in {
            "agent=ters": "Did you mean terse",
            "domain=shopp": "Did you mean shop",
            "domain.shop.tasks=base": "the domain shop is not selected",
            "+domain.shpo.tasks=base": "Did you mean shop",
        }.items():
            with pytest.raises(UserError, match=words.replace("?", ".")):
                load_config(compose([*way, "agent.model=m", wrong]), there)
        assert re.search(r"default\*, nemotron_orchestrator, terse", help.text([*way, "--help"]))
    with pytest.raises(UserError, match="there is no such directory"):
        for_hydra(["--config-dir", str(tmp_path / "nowhere")])
    with pytest.raises(UserError, match=r"only --config-dir"):
        compose(["--multirun", "seed=1,2"])


def test_what_can_be_is_not_refused() -> None:
    configure("user_llm=vllm", "user_llm.pool.name=agent")
    configure("+agent.extra_body.top_k=20", "agent.top_p=0.95", "agent.temperature=null")
    configure("domain=[mock,telecom]", "agent.mode=solo")
    load_config(compose(["server=external", "server.endpoints=[http://127.0.0.1:1900]"]))
    load_config(compose(["experiment=smoke"]))


def test_a_wrong_file_of_ones_own_is_named(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    for text, word in [
        ("server: {nmu: 3}", "server.nmu"),
        ("server: {num: abc}", "server.num=abc"),
        ("defaults: [override /usr_llm: gpt-5]", "Did you mean user_llm?"),
        ("server: [", "mine.yaml"),
    ]:
        (tmp_path / "experiment" / "mine.yaml").write_text(f"# @package _global_\n{text}\n")
        with pytest.raises(UserError) as caught:
            compose(["experiment=mine", f"hydra.searchpath=[file://{tmp_path}]"])
        assert "experiment/mine" in str(caught.value)
        assert word in str(caught.value)


def test_a_key_never_enters_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANTED_API_KEY", "sk-planted-0123456789")
    protect_environment()
    for value in ("sk-planted-0123456789", "${oc.env:PLANTED_API_KEY}"):
        with pytest.raises(UserError) as caught:
            changed(f"user_llm.extra_body.api_key={value}")
        message = str(caught.value)
        assert "user_llm.extra_body.api_key holds the value of an API key" in message
        assert "planted" not in message


def test_a_dotenv_fills_in_what_the_environment_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRST_API_KEY", "from the environment")
    monkeypatch.setenv("SECOND_API_KEY", "")
    monkeypatch.delenv("SECOND_API_KEY")
    (tmp_path / ".env").write_text("FIRST_API_KEY=from-the-file\nSECOND_API_KEY='a$b'\nEMPTY_API_KEY=\n")
    (tmp_path / "inner").mkdir()
    read_dotenv(tmp_path / "inner")
    assert "SECOND_API_KEY" not in os.environ
    read_dotenv(tmp_path)
    assert (os.environ["FIRST_API_KEY"], os.environ["SECOND_API_KEY"]) == ("from the environment", "a$b")
    assert "EMPTY_API_KEY" not in os.environ


def test_the_help_names_every_key_and_every_choice() -> None:
    text = help.text()
    for key in table.key_names():
        last = key.rpartition(".")[2]
        assert re.search(rf"(^|[\s.]){re.escape(last)}\b", text, re.M), key
    for group in SHIPPED.groups():
        assert re.search(rf"^  {group} ", text, re.M)
        assert all(choice in text for choice in SHIPPED.choices(group))
    assert "gpt-6.1-sol*" in text
    assert max(len(line) for line in text.splitlines()) <= 120


MAY_DIFFER = [
    "log_level=DEBUG",
    "max_concurrency=3",
    "server.num=2",
    "server=external server.endpoints=[http://127.0.0.1:1900]",
    "wandb=disabled",
    "limits.grace_s=1",
    "num_trials=2",
    "domain=[retail,telecom,airline,mock]",
    "domain.telecom.tasks=full",
    "user_llm.price.input=3 user_llm.price.output=4",
    "user_llm.max_tokens_key=max_tokens",
]


@pytest.mark.parametrize("overrides", MAY_DIFFER)
def test_a_run_may_go_on_with(overrides: str) -> None:
    saved, new = configure(), configure(*overrides.split())
    assert differing_keys(saved, new) == {}
    assert result_digest(saved) == result_digest(new)


@pytest.mark.parametrize(
    ("overrides", "keys"),
    [
        ("agent.temperature=0", {"agent.temperature"}),
        ("agent.model=org/other", {"agent.model"}),
        ("seed=1", {"seed"}),
        ("max_steps=100", {"max_steps"}),
        ("user_llm=gpt-6.1-terra", {"user_llm.model"}),
        ("judge=none", {"judge.enabled"}),
        ("experts=none", {"experts.expert_1", "experts.expert_2", "experts.expert_3"}),
        ("experts.policy_edit=own", {"experts.policy_edit"}),
        ("server=simulated", {"server.kind"}),
        ("+agent.extra_body.top_k=4", {"agent.extra_body"}),
    ],
)
def test_a_run_may_not_go_on_with(overrides: str, keys: set[str]) -> None:
    saved, new = configure(), configure(*overrides.split())
    assert set(differing_keys(saved, new)) == keys
    assert result_digest(saved) != result_digest(new)


def test_simulations_may_be_added_and_not_taken_away() -> None:
    few = configure("domain=[retail,mock]", "num_tasks=5", "num_trials=2", "task_ids=[retail/1]")
    more = configure("domain=[mock,retail,airline]", "num_tasks=6", "num_trials=3", "task_ids=[retail/2,retail/1]")
    assert differing_keys(few, more) == {}
    assert differing_keys(few, configure("domain=[retail,mock]", "num_trials=2")) == {}
    back = differing_keys(more, few)
    assert set(back) == {"domain", "num_tasks", "num_trials", "task_ids"}
    assert set(differing_keys(configure(), few)) == {"domain", "num_tasks", "task_ids"}


def test_another_task_set_may_add_tasks_and_not_take_any_away() -> None:
    base, small, test, few = (
        configure("domain=telecom", *more)
        for more in (
            [],
            ["domain.telecom.tasks=small"],
            ["domain.telecom.tasks=test"],
            ["domain.telecom.tasks=full", "num_tasks=20"],
        )
    )
    assert differing_keys(small, configure("domain=telecom", "domain.telecom.tasks=full")) == {}
    assert differing_keys(base, test) == {"domain.telecom.tasks": ("base", "test")}
    assert "domain.telecom.tasks" in differing_keys(small, few)


def test_the_summary_can_name_its_reference_and_the_departures() -> None:
    assert departures(configure("experiment=official")) == ("official", {})
    assert departures(configure("experiment=leaderboard", "agent.model=org/other")) == ("leaderboard", {})
    like = ["user_llm=gpt-5", "judge=gpt-5", "experts=official"]
    assert departures(configure(*like, "max_concurrency=2", "server.num=1", "wandb=offline")) == ("official", {})
    assert departures(configure(*like, "seed=1", "domain=retail")) == (
        "official",
        {"seed": (300, 1), "domain": (["airline", "retail", "telecom"], ["retail"])},
    )
    assert departures(configure("experiment=leaderboard", "user_llm=gpt-4.1-mini")) == (
        "leaderboard",
        {"user_llm.model": ("gpt-4.1", "gpt-4.1-mini")},
    )
    like = ["experts=none", "agent.temperature=0", "num_trials=4", "user_llm=gpt-4.1", "judge=gpt-4.1"]
    name, found = departures(configure(*like, "user_llm.temperature=0", "judge.temperature=0"))
    assert name == "leaderboard"
    assert "agent.max_output_tokens" in found
    assert departures(configure("experts=none"))[1]["experts.expert_1"] == ("gpt-5", None)


def test_a_plain_run_is_compared_with_the_official_one_and_departs_from_it_in_its_models_alone() -> None:
    name, found = departures(configure())
    assert name == "official"
    assert found["user_llm.model"] == ("gpt-5", "gpt-6.1-sol")
    assert found["experts.expert_2"] == ("gpt-5-mini", "gpt-6.1-terra")
    assert {key.partition(".")[0] for key in found} == {"user_llm", "judge", "experts"}


@pytest.mark.parametrize(("experiment", "digest"), [("official", "b5cc11cf40c8"), ("leaderboard", "7ab4490d702c")])
def test_runs_begun_before_models_had_lifetimes_can_go_on(experiment: str, digest: str) -> None:
    """The digests of these recipes as they were until then."""
    config = load_config(compose(["agent.model=x/y", f"experiment={experiment}"]))
    assert result_digest(config).startswith(digest)


def test_what_the_official_experiment_says_in_full_is_the_default_but_for_the_models_and_ten_at_once() -> None:
    plain = configure("user_llm=gpt-5", "judge=gpt-5", "experts=official", "max_concurrency=10")
    official = configure("experiment=official")
    official.experiment_name = None
    assert plain == official


def test_a_domain_whose_path_stays_unset_is_none() -> None:
    tree = OmegaConf.structured(schema(["mine"]))
    OmegaConf.set_struct(tree, True)
    assert "mine" not in unchecked_config(tree).domain
    assert "mine" in tree.domain, "what Hydra composed stays as it is"
    tree.domain.mine.path = "somewhere"
    assert unchecked_config(tree).domain["mine"].path == "somewhere"
