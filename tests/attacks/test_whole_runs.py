"""Whole runs under attack end with a status that means something, with all their files, and without a key in one."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import resource
import secrets
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tau2_fleet.evaluation.termination import TerminationReason
from tests import warm
from tests.attacks.hostile import ATTACKS, EVIL, hostile, named
from tests.run.runs import ROOT, assert_no_server_remains, command, env, records, summary
from tests.waiting import CEILING_S

KEY = f"sk-{secrets.token_urlsafe(30)}"
FILES = ("mock.json", "profile.jsonl", "run.log", "simulations.csv", "simulations.jsonl", "summary.json", "trace.json")
ENDINGS = {*TerminationReason}
_ONE_TASK = ("experiment=smoke", "task_ids=[create_task_1]")


def run(run_dir: Path, *overrides: str, **more: Any) -> subprocess.CompletedProcess[str]:
    own_ports = f"server.start_port={20_000 + 10 * secrets.randbelow(1000)}"  # other tests run beside this one
    settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "timeout": 300} | more
    environment = env({"ATTACKED_API_KEY": KEY, "HOME": str(run_dir.parent), **settings.pop("environment", {})})
    if more.keys() <= {"environment"}:
        return warm.run("src.main", command(run_dir, own_ports, *overrides)[3:], cwd=ROOT, env=environment)
    return subprocess.run(command(run_dir, own_ports, *overrides), cwd=ROOT, env=environment, text=True, **settings)


def user_at(url: str) -> list[str]:
    return [
        *("user_llm.provider=openai", "user_llm.model=m", f"user_llm.base_url={url}/v1"),
        *("user_llm.api_key_env=ATTACKED_API_KEY", "limits.call_timeout_s=1", "limits.simulation_timeout_s=8"),
    ]


def assert_kept(run_dir: Path, printed: str, folder: Path | None = None) -> None:
    """Nothing failed unexpectedly, nothing is missing, and the key is nowhere."""
    for words in ("Traceback", "failed unexpectedly"):
        assert words not in printed
        assert words not in (run_dir / "run.log").read_text()
    assert KEY.lower() not in printed.lower()
    for name in FILES:
        assert (run_dir / name).is_file(), name
    for path in (folder or run_dir).rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert KEY.lower().encode() not in path.read_bytes().lower(), path
            assert KEY.lower() not in path.name.lower()
    json.loads((run_dir / "mock.json").read_bytes())
    json.loads((run_dir / "trace.json").read_bytes())
    assert_no_server_remains(run_dir)


@pytest.mark.parametrize("part", range(2))
def test_a_provider_that_attacks_ends_simulations_and_nothing_else(tmp_path: Path, part: int) -> None:
    names = [name for name in ATTACKS if name != "ask again next year"][part::2]
    with hostile(*names, calm_at_first=True) as server:
        done = run(
            tmp_path / "run", "experiment=smoke", "num_trials=3", "log_level=DEBUG", "wandb=offline",
            *user_at(server.url),
        )  # fmt: skip
    assert done.returncode in (0, 3), done.stderr
    assert {record["termination_reason"] for record in records(tmp_path / "run")} <= ENDINGS
    assert_kept(tmp_path / "run", done.stdout + done.stderr, tmp_path)


@pytest.mark.parametrize("attack", [name for name in named("the key") if name != "the key as a redirect"])
def test_a_key_that_every_answer_quotes_is_nowhere(tmp_path: Path, attack: str) -> None:
    with hostile(attack, calm_at_first=True) as server:
        done = run(tmp_path / "run", *_ONE_TASK, "log_level=DEBUG", *user_at(server.url))
    assert done.returncode in (0, 3), done.stderr
    assert_kept(tmp_path / "run", done.stdout + done.stderr, tmp_path)


@pytest.mark.parametrize(
    "name", [lambda key: key, lambda key: f"model of {key}", lambda key: key[:20] + "\n" + key[20:]]
)
def test_a_served_model_named_like_the_key_is_redacted_wherever_it_is_named(
    tmp_path: Path, name: Callable[[str], str]
) -> None:
    from tests.attacks import hostile as attacks

    body = attacks.changed(data=[{"id": name(KEY), "max_model_len": 32768}])
    attacks.ATTACKS["own list"] = attacks.body(body)
    try:
        with hostile("own list") as server:
            done = run(
                tmp_path / "run", *_ONE_TASK, "server=external", f"server.endpoints=[{server.url}]",
                "server.api_key_env=ATTACKED_API_KEY", "server.preflight=false", "wandb=offline",
            )  # fmt: skip
    finally:
        del attacks.ATTACKS["own list"]
    assert done.returncode in (0, 3), done.stderr
    assert_kept(tmp_path / "run", done.stdout + done.stderr, tmp_path)


@pytest.mark.parametrize("attack", ["endless body", "compressed bomb", "deep list", "slow head", "models of no kind"])
def test_a_server_of_the_fleet_that_attacks_is_named_in_a_line_or_two(tmp_path: Path, attack: str) -> None:
    with hostile(attack) as server:
        done = run(
            tmp_path / "run", *_ONE_TASK, "server=external", f"server.endpoints=[{server.url}]",
            "server.ready_timeout_s=3", "agent.model=m",
        )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert server.url.removeprefix("http://") in done.stderr
    assert len(done.stderr) < 3000


@pytest.mark.parametrize("where", ["/dev/full", "closed pipe", "closed"])
def test_what_nobody_can_read_costs_no_file(tmp_path: Path, where: str) -> None:
    more: dict[str, Any] = {}
    if where == "/dev/full":
        more["stdout"] = os.open(where, os.O_WRONLY)
    elif where == "closed pipe":
        reading, more["stdout"] = os.pipe()
        os.close(reading)
    else:
        more.update(stdout=None, preexec_fn=lambda: os.close(1))
    done = run(tmp_path / "run", *_ONE_TASK, "log_level=PROFILE", "wandb=offline", **more)
    assert done.returncode == 0, done.stderr
    assert_kept(tmp_path / "run", done.stderr)
    assert summary(tmp_path / "run")["exit_status"] == 0
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))
    assert ("standard output could not be written" in done.stderr) == (where == "/dev/full")


@pytest.mark.parametrize(
    ("term", "rows", "columns"),
    [("xterm-256color", 1, 1), ("xterm", 0, 0), ("dumb", 2, 10), ("no-such-terminal", 1000, 1000)],
)
def test_an_odd_terminal_shows_what_it_can(tmp_path: Path, term: str, rows: int, columns: int) -> None:
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    shown: list[bytes] = []

    def read() -> None:
        try:
            while piece := os.read(leader, 65536):
                shown.append(piece)
        except OSError:  # the last one has closed it
            return

    reader = threading.Thread(target=read)
    reader.start()
    done = run(
        tmp_path / "run", *_ONE_TASK, stdin=follower, stdout=follower, stderr=follower,
        environment={"TERM": term, "COLUMNS": "", "LINES": ""},
    )  # fmt: skip
    os.close(follower)
    reader.join(CEILING_S)
    os.close(leader)
    assert done.returncode == 0, b"".join(shown)
    assert_kept(tmp_path / "run", b"".join(shown).decode("utf-8", "replace"))


def test_a_table_in_a_pipe_is_whole_however_narrow_the_terminal_is(tmp_path: Path) -> None:
    done = run(tmp_path / "run", *_ONE_TASK, environment={"COLUMNS": "20"})
    assert "…" not in done.stdout
    assert {"domain", "done", "errors", "reward", "pass^1", "cost", "time"} <= set(done.stdout.split())


@pytest.mark.parametrize(
    ("what", "limit"), [(resource.RLIMIT_FSIZE, 3000), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_NOFILE, 24)]
)
def test_too_little_of_something_is_said_in_a_line(tmp_path: Path, what: int, limit: int) -> None:
    """A disk that takes no more of a file, and few file descriptors."""

    def restrict() -> None:
        resource.setrlimit(what, (limit, limit))

    done = run(tmp_path / "run", *_ONE_TASK, "report=false", preexec_fn=restrict)
    assert done.returncode in (0, 1, 3), done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == 0 or "error" in done.stderr
    assert_no_server_remains(tmp_path / "run")


@pytest.mark.parametrize(
    "name", ["with space", "quo'te\"s", "${HOME}", "line\nbreak", "\x1b]0;owned\x07", "ünï", "a,b=[c]"]
)
def test_a_directory_with_an_odd_name_works_or_is_refused_in_a_line(tmp_path: Path, name: str) -> None:
    quoted = name.replace("\\", "\\\\").replace("'", "\\'").replace("$", "\\$")
    done = run(tmp_path / "run", *_ONE_TASK, f"hydra.run.dir='{tmp_path}/{quoted}'")
    assert done.returncode in (0, 1)
    assert "Traceback" not in done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    if done.returncode == 0:
        assert len(list(tmp_path.rglob("summary.json"))) == 1
    else:
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("words", [["experiment=smoke"], ["show", "run"], ["doctor"]])
def test_a_working_directory_that_is_gone_is_said_in_a_line(tmp_path: Path, words: list[str]) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    program = "import os, sys; os.rmdir(os.getcwd()); from tau2_fleet.cli import run; sys.exit(run(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", program, *words], cwd=gone, env=env({}), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: the working directory is not there any longer")
    assert done.stderr.count("\n") == 1


def test_names_of_tasks_with_control_signs_and_formulas_are_harmless_in_tables(tmp_path: Path) -> None:
    from tau2_fleet.benchmark.domains import load_domain

    (task,) = load_domain("mock").tasks("base", limit=1)
    names = [f"=cmd|{EVIL}", "+1+1", "-2", "@SUM(A1)", "\ttab", EVIL]
    tasks = [task.model_dump(mode="json") | {"id": name} for name in names]
    (tmp_path / "tasks.json").write_text(json.dumps(tasks))
    done = run(tmp_path / "run", "experiment=smoke", f"domain.mock.tasks={tmp_path / 'tasks.json'}", "log_level=DEBUG")
    assert done.returncode == 0, done.stderr
    table = (tmp_path / "run" / "simulations.csv").read_text()
    assert len(table.splitlines()) == 1 + len(names)
    assert all(cell[:1] not in "=+@\t" or not cell for line in table.splitlines()[1:] for cell in line.split(","))
    for text in (table, done.stdout, done.stderr, (tmp_path / "run" / "run.log").read_text()):
        assert not {"\x1b", "\x07", "\x9b", "\u202e", "\x00"} & set(text)
