"""The promises on secrets: none stands in a configuration, which is written down, and all that it names are known."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tau2_fleet.config import compose, load_config
from tau2_fleet.config.secret_values import carried_by
from tau2_fleet.errors import UserError
from tau2_fleet.llm.keys import authorization, find_key
from tau2_fleet.llm.settings import ModelSettings
from tau2_fleet.telemetry import secrets
from tests.run.runs import ROOT, env

SECRET = "q7h2-Zk19fjw83ab"


@pytest.fixture(autouse=True)
def _own_redactors(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test makes known is forgotten after it."""
    for redactor in (secrets.redactor, secrets.record_redactor):
        for name in ("_known", "_needles"):
            monkeypatch.setattr(redactor, name, getattr(redactor, name))


@pytest.mark.parametrize(
    ("key", "value", "way"),
    [
        ("user_llm.extra_body.token", SECRET, "user_llm.api_key_env"),
        ("user_llm.extra_body", {"auth": [{"api_key": SECRET}]}, "user_llm.api_key_env"),
        ("experts.expert_2.llm.extra_body.headers.Authorization", "x " + SECRET, "experts.expert_2.llm.api_key_env"),
        ("agent.extra_body.comment", "authorization: " + SECRET, "server.api_key_env"),
        ("server.extra_args", f"--max-num-seqs 4 --api-key {SECRET}", "servers of this run get a random one"),
        ("user_llm.pool.extra_args", f"--api_key={SECRET}", "servers of this run get a random one"),
        ("server.extra_args", f"--hf-token {SECRET}", "HF_TOKEN"),
        ("judge.base_url", f"https://host/v1?api-key={SECRET}", "judge.api_key_env"),
        ("judge.base_url", f"https://host/v1?a=b&subscription-key={SECRET}", "judge.api_key_env"),
        ("server.endpoints", ["http://a:1", f"http://me:{SECRET}@host:1900"], "server.basic_auth_env"),
        ("user_llm.pool.endpoints", [f"http://{SECRET}@host"], "user_llm.pool.basic_auth_env"),
        ("wandb.notes", "my key is sk-proj-0123456789abcdefghij", "api_key_env"),
        ("wandb.notes", "see eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVm", "api_key_env"),
        ("wandb.tags", ["AKIA" + "Q3EXAMPLEEXAMPLE"], "api_key_env"),
        ("wandb.notes", "glpat-" + "0123456789abcdefghij", "api_key_env"),
        ("user_llm.reasoning_effort", "Bearer " + SECRET, "user_llm.api_key_env"),
    ],
)
def test_a_value_that_carries_a_secret_is_refused_with_the_right_way_and_not_repeated(
    key: str, value: object, way: str
) -> None:
    why = carried_by(key, value)
    assert why is not None
    assert way in why
    assert "run directory" in why
    assert SECRET not in why


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("user_llm.extra_body", {"stop_token_ids": [1, 2], "eos_token": "<|im_end|>", "max_tokens": 10}),
        ("user_llm.extra_body.pad_token", "[PADDING]"),
        ("user_llm.extra_body.chat_template_kwargs.token", "short"),
        ("server.extra_args", "--max-num-batched-tokens 8192 --return-tokens-as-token-ids --tokenizer-mode auto"),
        ("server.endpoints", ["http://127.0.0.1:1900/v1", "http://[::1]:80"]),
        ("user_llm.base_url", "https://host/openai?api-version=2024-10-21"),
        ("experts.expert_1.strength", "a basic reasoner; the bearer of bad news, for basic reasoning"),
        ("wandb.notes", "user@example.org wrote: compare with key findings = none"),
        ("agent.model", "/ckpt/run@3/sk-learn-model"),
        ("agent.model", "org/model"),
    ],
)
def test_a_value_without_a_secret_is_not_refused(key: str, value: object) -> None:
    assert carried_by(key, value) is None


def test_what_a_variable_of_any_name_holds_is_not_for_a_request_body(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPANY_THING", "vs93kf0ss0e21")
    assert carried_by("user_llm.extra_body.tenant", "vs93kf0ss0e21") is not None
    assert carried_by("server.extra_args", "--some-flag=vs93kf0ss0e21") is not None
    assert carried_by("wandb.name", "vs93kf0ss0e21") is None


def configured(variable: str, *more: str) -> None:
    url = ["user_llm.base_url=http://127.0.0.1:9/v1", f"user_llm.api_key_env={variable}"]
    load_config(compose(["experiment=smoke", "user_llm=gpt-4.1", *url, *more]))


def test_keys_that_the_configuration_names_are_kept_out_of_everything_whatever_their_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("COMPANY_LLM", "abcdefg8")
    monkeypatch.setenv("GATE", "me:wordpass9")
    (tmp_path / "key").write_text("filed-10ch\n")
    configured(
        "COMPANY_LLM",
        *("server=external", "server.endpoints=[http://127.0.0.1:9]", "server.basic_auth_env=GATE"),
        *("judge.pool.name=graders", "llm@judge=vllm", "judge.model=m", f"judge.pool.api_key_file={tmp_path}/key"),
    )
    for value in ("abcdefg8", "me:wordpass9", "wordpass9", "filed-10ch"):
        assert secrets.redact(f"<{value}>") == "<[redacted]>"
        assert secrets.record_redactor.redact_bytes(f"<{value}>".encode()) == b"<[redacted]>"


def test_values_that_are_no_keys_are_words_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for word in ("EMPTY", "none", "dummy"):
        monkeypatch.setenv("COMPANY_LLM", word)
        configured("COMPANY_LLM")
        assert secrets.redact(f"the box is {word}") == f"the box is {word}"
    for value, said in {
        "abcd7": "only 5 characters",
        f"{ROOT / 'nowhere'}:{ROOT}": "the form of a path",
        "first-half\nsecond-half": "line break",
        "two words and more": "line break or a blank",
        "sch\u00f6ner-schl\u00fcssel": "beyond ASCII",
    }.items():
        monkeypatch.setenv("COMPANY_LLM", value)
        with pytest.raises(UserError) as caught:
            configured("COMPANY_LLM")
        assert str(caught.value).startswith("user_llm.api_key_env=COMPANY_LLM: the key has ")
        assert said in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1
        assert value.split()[0] not in str(caught.value)
    with pytest.raises(UserError, match="the name of a variable that holds the key, not the key itself") as caught:
        configured("'q7h2-Zk19fjw83ab'")
    assert SECRET not in str(caught.value)


def test_basic_authentication_is_the_header_that_a_request_carries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATE", "Aladdin:open sesame".replace(" ", "-"))
    key = find_key(ModelSettings(base_url="http://h", basic_auth_env="GATE"))
    assert key is not None
    assert authorization(key.value) == "Basic QWxhZGRpbjpvcGVuLXNlc2FtZQ=="
    assert authorization("sk-1") == "Bearer sk-1"
    with pytest.raises(UserError, match="give one of the two"):
        configured("GATE", "user_llm.basic_auth_env=GATE")
    with pytest.raises(UserError, match=r"only with user_llm\.base_url"):
        load_config(compose(["experiment=smoke", "user_llm=claude-sonnet", "user_llm.basic_auth_env=GATE"]))


@pytest.mark.parametrize("sweep", [False, True])
@pytest.mark.parametrize("place", ["argument", "file"])
def test_nothing_is_written_where_a_configuration_carries_a_secret(tmp_path: Path, place: str, sweep: bool) -> None:
    setting = f"server.extra_args='--api-key {SECRET}'"
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    text = f"# @package _global_\nserver: {{extra_args: '--api-key {SECRET}'}}\n"
    (tmp_path / "own" / "experiment" / "mine.yaml").write_text(text)
    chosen = [setting] if place == "argument" else ["--config-dir", str(tmp_path / "own"), "experiment=mine"]
    (tmp_path / "there").mkdir()
    process = subprocess.run(
        [sys.executable, "-m", "src.main", "agent.model=m", *(["-m", "seed=1,2"] if sweep else []), *chosen],
        cwd=tmp_path / "there",
        env=env({}) | {"PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 1
    assert "server.extra_args has a key among the flags" in process.stderr
    assert SECRET not in process.stdout + process.stderr
    assert not list((tmp_path / "there").rglob("*"))


def test_python_without_docstrings_is_refused(tmp_path: Path) -> None:
    for flags, variables in ((["-OO"], {}), ([], {"PYTHONOPTIMIZE": "2"})):
        process = subprocess.run(
            [sys.executable, *flags, "-m", "src.main", "experiment=smoke"],
            cwd=tmp_path,
            env=env({}) | {"PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"} | variables,
            capture_output=True,
            text=True,
        )
        assert process.returncode == 1
        assert process.stderr.startswith("error: Python was told to strip docstrings")
        assert len(process.stderr.splitlines()) == 1
        assert list(tmp_path.iterdir()) == []
