"""Every rule of a configuration by itself: what is told of a value that cannot be, and that nothing else is."""

from __future__ import annotations

import copy
import operator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tau2_fleet.config import Config, compose, load_config, task_ids_of
from tau2_fleet.config.problems import problems_of
from tau2_fleet.config.sources import SHIPPED
from tau2_fleet.config.tasks import read_task_ids, split_task_id
from tau2_fleet.errors import UserError
from tau2_fleet.llm.settings import Api, LifetimeSettings, PoolSettings, Provider
from tau2_fleet.simulation.settings import AgentMode


@cache
def plain() -> Config:
    return load_config(compose(["agent.model=org/model"]))


def changed(**changes: Any) -> Config:
    """The defaults with other values, by keys in which `__` stands for a dot."""
    config = copy.deepcopy(plain())
    config.user_llm.api = Api.chat
    for key, value in changes.items():
        *parents, last = key.split("__")
        setattr(operator.attrgetter(".".join(parents))(config) if parents else config, last, value)
    return config


def told(config: Config) -> list[str]:
    return list(problems_of(config, SHIPPED))


POOL = PoolSettings(name="own")


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({}, []),
        ({"wandb__project": ""}, ["wandb.project: must not be empty"]),
        ({"resume_force": True}, ["resume_force=true: only with resume=DIR"]),
        ({"resume_force": True, "resume": "x"}, []),
        ({"agent__prompt_file": "no/such"}, ["agent.prompt_file=no/such: there is no such file"]),
        ({"agent__max_output_tokens": 22_999}, []),
        (
            {"agent__max_output_tokens": 23_000},
            ["agent.max_output_tokens=23000: leaves nothing of agent.max_context_tokens=23000 for the input"],
        ),
        ({"agent__max_context_tokens": None}, []),
        ({"task_ids": []}, ["task_ids=[]: name at least one task, or leave it null for all"]),
        ({"task_ids": ["retail/5", "airline/x/y"]}, []),
        (
            {"task_ids": ["5", "mock/1"]},
            [
                "task_ids: 5 could be of any of [retail,telecom,airline]; write for example retail/5",
                "task_ids: mock/1 is of the domain mock, which is not selected (domain=[retail,telecom,airline])",
            ],
        ),
        ({"shard__index": 1}, ["shard.index=1: of shard.count=1 parts the last is 0"]),
        ({"shard__index": 1, "shard__count": 2}, []),
        (
            {"shard__count": 5, "max_concurrency": 4},
            ["max_concurrency=4: all 5 shards share it, and each needs at least one"],
        ),
        ({"shard__count": 4, "max_concurrency": 4}, []),
        (
            {"server__model_config": "no/such"},
            [
                "server.endpoints and server.model_config are read with server=external only, not vllm",
                "server.model_config=no/such: there is no such file",
            ],
        ),
        ({"server__start_port": 65_532}, []),
        ({"server__start_port": 65_533}, ["server.start_port=65533: 4 replicas from there pass port 65535"]),
        (
            {"server__gpu_ids": []},
            ["server.gpu_ids=[]: wants numbers from 0 (one named twice takes two replicas), or null for all visible"],
        ),
        ({"server__gpu_ids": [0, 0]}, []),
        (
            {"user_llm__model": None},
            ["user_llm.model is not set: give the name that openai knows the model by"],
        ),
        ({"user_llm__base_url": "host:80"}, ["user_llm.base_url: host:80 is not a URL; write http://host:80"]),
        ({"user_llm__base_url": "https://host"}, []),
        (
            {"user_llm__api": Api.responses, "user_llm__provider": Provider.litellm},
            ["user_llm.api=responses: only provider openai speaks it, this is litellm"],
        ),
        (
            {"user_llm__basic_auth_env": "MINE"},
            [
                "user_llm.basic_auth_env: only with user_llm.base_url and provider openai, or as "
                "user_llm.pool.basic_auth_env"
            ],
        ),
        ({"user_llm__basic_auth_env": "MINE", "user_llm__base_url": "http://host"}, []),
        (
            {"user_llm__provider": Provider.vllm, "user_llm__pool": None},
            ["user_llm.provider=vllm: needs a pool; start from user_llm=vllm or user_llm=simulated"],
        ),
        (
            {"user_llm__provider": Provider.vllm, "user_llm__pool": POOL, "user_llm__model": None},
            ["user_llm.model is not set: which model is to be served (or user_llm.pool.name=agent)?"],
        ),
        (
            {
                "user_llm__provider": Provider.simulated,
                "user_llm__pool": PoolSettings(name="u", endpoints=["http://a"]),
            },
            [
                "user_llm.pool.endpoints: a simulated model is played by servers of this run; for servers that run "
                "already choose llm@user_llm=vllm"
            ],
        ),
        (
            {"user_llm__provider": Provider.simulated, "user_llm__pool": PoolSettings(name="agent")},
            ["user_llm.pool.name=agent: the pool of agent, where only one of the two is simulated"],
        ),
        (
            {"user_llm__provider": Provider.vllm, "user_llm__pool": PoolSettings(name="agent"), "user_llm__model": "m"},
            ["user_llm.pool.name=agent: the pool of agent, which serves org/model, not m"],
        ),
        ({"user_llm__provider": Provider.vllm, "user_llm__pool": POOL, "user_llm__model": "m"}, []),
        (
            {"user_llm__lifetime": LifetimeSettings(ends="soon", looked="none announced")},
            [
                "user_llm.lifetime.ends=soon: must be a day such as 2026-12-11, or none announced",
                "user_llm.lifetime.looked=none announced: must be a day such as 2026-12-11",
            ],
        ),
        ({"user_llm__lifetime": LifetimeSettings(ends="none announced", looked="2026-01-01")}, []),
        ({"server__simulated__latency": "none"}, None),
    ],
)
def test_what_is_told_of_a_value(changes: dict[str, Any], lines: list[str] | None) -> None:
    found = told(changed(**changes))
    if lines is None:
        assert len(found) == 1
    else:
        assert found == lines


def test_a_domain_without_solo_mode_is_named_for_each() -> None:
    found = told(changed(agent__mode=AgentMode.solo))
    assert found == [
        f"agent.mode=solo: {name} has no solo mode; choose among mock, telecom, telecom-workflow"
        for name in ("retail", "airline")
    ]


def test_domains_and_their_places_must_be_there(tmp_path: Path) -> None:
    config = changed()
    domain = config.domain["retail"]
    domain.tasks, domain.path, domain.data_dir = str(tmp_path / "t.json"), str(tmp_path / "d"), str(tmp_path / "e")
    config.domain = {"retial": domain}
    found = told(config)
    assert found == [
        f"domain.retial.tasks={tmp_path / 't.json'}: there is no such file",
        f"domain.retial.path={tmp_path / 'd'}: there is no such directory",
        f"domain.retial.data_dir={tmp_path / 'e'}: there is no such directory",
    ]
    for name in ("d", "e"):
        (tmp_path / name).mkdir()
    (tmp_path / "t.json").touch()
    assert told(config) == []
    domain.path = None
    assert [line[:60] for line in told(config)] == ["domain=retial: there is no such domain. Did you mean retail?"]
    config.domain = {}
    assert [line[:36] for line in told(config)] == ["domain: select at least one of airli"]


def test_tasks_come_from_a_file_a_line_each_and_once(tmp_path: Path) -> None:
    path = tmp_path / "ids"
    path.write_text("# failed\nretail/5\n\n  7 \nretail/5\n #x\n")
    assert read_task_ids(path) == ["retail/5", "7"]
    path.write_text("# none\n")
    with pytest.raises(UserError, match=r"ids: it names no task \(wanted: one domain/id a line\)$"):
        read_task_ids(path)
    path.write_bytes(b"\xff")
    with pytest.raises(UserError, match=r"ids: it is not a text in UTF-8$"):
        read_task_ids(path)
    with pytest.raises(UserError, match=r"none: No such file or directory$"):
        read_task_ids(tmp_path / "none")


def test_an_id_belongs_to_the_domain_before_its_slash_where_there_is_such_a_domain() -> None:
    assert [split_task_id(text, ["lamps"]) for text in ("5", "retail/5", "lamps/a/b", "other/5", "/5")] == [
        (None, "5"), ("retail", "5"), ("lamps", "a/b"), (None, "other/5"), (None, "/5"),
    ]  # fmt: skip
    config = changed(task_ids=["5", "retail/6", "5", "airline/7"])
    assert (task_ids_of(config, "retail"), task_ids_of(config, "airline")) == (["5", "6"], ["5", "7"])
    assert task_ids_of(changed(), "retail") is None
    assert task_ids_of(changed(task_ids=["airline/7"]), "retail") == []
