"""The process of somebody's tau2: what it prints, what ends it, and what becomes of those who wait for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tau2_fleet.benchmark.custom.place import find
from tau2_fleet.benchmark.custom.process import CallHeld, Child, ChildEnded, ChildFailed, ChildRefused, ChildUnopened
from tau2_fleet.errors import UserError
from tests.benchmark.small_tau2 import call, write_small_tau2
from tests.waiting import wait_for

ALL = {"only_writes": False, "skip_unknown": False, "strict": True}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_tau2(tmp_path_factory.mktemp("small"))


@pytest.fixture
def child(small: Path) -> Iterator[Child]:
    child = Child(small / "src")
    yield child
    child.close()


def opened(child: Child, number: int = 1, task: int = 0, calls: Any = (), rules: Any = ALL) -> Any:
    tasks = child.ask("tasks", name="lamps", split="base")
    about = {"name": "lamps", "options": {}, "task": tasks[task], "solo": False, "history": []}
    return child.ask("open", number=number, calls=list(calls), rules=rules, **about)


def made(child: Child, *arguments: Any, number: int = 1, sync: bool = False, **more: Any) -> Any:
    return child.ask("call", number=number, sync=sync, call=call(*arguments, **more))


def test_what_its_imports_and_tools_print_is_no_answer(child: Child) -> None:
    assert child.ask("describe")["domains"] == ["lamps"]
    opened(child)
    assert made(child, "look", lamp="hall") == {"content": "hall is off", "error": False}


def test_environments_are_apart_and_calls_answer_as_the_code_does(child: Child) -> None:
    opened(child, 1), opened(child, 2)
    assert made(child, "switch", lamp="hall")["content"] == "done"
    assert made(child, "look", lamp="hall", number=2)["content"] == "hall is off"
    assert made(child, "look", lamp="hall")["content"] == "hall is on"
    assert made(child, "switch", lamp="cellar") == {"content": "Error: no lamp cellar", "error": True}
    assert made(child, "count", "user")["content"] == "1"


@pytest.mark.parametrize(
    ("how", "said"), [("die", "ended with status 3"), ("nonsense", "no answer"), ("hang", "did not answer for 1 s")]
)
def test_the_call_that_ends_the_process_fails_and_the_next_question_finds_another_one(
    small: Path, how: str, said: str
) -> None:
    child = Child(small / "src", call_limit_s=1)
    try:
        opened(child)
        first, generation = child.pid, child.generation
        doing = child.send("call", {"number": 1, "sync": False, "call": call("misbehave", how=how)})
        waiting = child.send("call", {"number": 1, "sync": False, "call": call("look", lamp="hall")})
        with pytest.raises(ChildEnded, match=said) as guilty:
            doing.result(30)
        with pytest.raises(ChildEnded) as innocent:
            waiting.result(30)
        assert (guilty.value.guilty, innocent.value.guilty) == (True, False)
        opened(child)
        assert (child.pid != first, child.generation) == (True, generation + 1)
    finally:
        child.close()


def test_an_environment_of_a_process_that_ended_is_made_again_from_its_calls(child: Child) -> None:
    done = [call("switch", lamp="hall") | {"answer": "done"}, call("look", lamp="hall") | {"answer": "hall is on"}]
    assert opened(child, calls=done) == []
    assert made(child, "look", lamp="hall")["content"] == "hall is on"
    done[1]["answer"] = "hall is off"
    assert opened(child, 2, calls=done) == [{"index": 1, "answer": "hall is on"}]
    writes = {"only_writes": True, "skip_unknown": True, "strict": True}
    assert opened(child, 3, calls=[*done, call("fly") | {"answer": "?"}], rules=writes) == []


def test_a_power_that_never_ends_ends_at_its_limit_and_holds_nobody_for_long(child: Child) -> None:
    opened(child)
    pid = child.pid
    with pytest.raises(CallHeld, match="2 s of processor time"):
        made(child, "calculate", expression="9**9**9")
    assert made(child, "calculate", expression="2**10")["content"] == "1024"
    assert child.pid == pid


def test_an_exit_in_a_tool_is_an_answer_and_a_failure_names_its_line(child: Child) -> None:
    opened(child)
    assert made(child, "misbehave", how="exit") == {"content": "Error: 1", "error": True}
    with pytest.raises(ChildUnopened):
        made(child, "look", lamp="hall", number=99)
    with pytest.raises(ChildFailed, match=r"KeyError: 'broken' \(tau2/lamps.py, line \d+\)"):
        child.ask("tasks", name="lamps", split="broken")


def test_it_gets_no_key(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("MY_TOKEN", "secret")
    (small / ".env").write_text("OTHER_API_KEY=secret\n", encoding="utf-8")
    child = Child(small / "src")
    try:
        opened(child)
        names = made(child, "misbehave", how="environment")["content"].split()
        assert {"PATH", "PYTHONPATH"} <= set(names)
        assert [name for name in names if "KEY" in name or "TOKEN" in name] == []
    finally:
        child.close()


def test_it_ends_with_the_runner_though_a_tool_holds_it(small: Path) -> None:
    program = f"""
import sys, time
from tau2_fleet.benchmark.custom.process import Child
from tests.benchmark.test_custom_process import opened
from tests.benchmark.small_tau2 import call
from pathlib import Path
child = Child(Path({str(small / "src")!r}))
opened(child)
child.send("call", {{"number": 1, "sync": False, "call": call("misbehave", how="hang")}})
print(child.pid, flush=True)
time.sleep(600)
"""
    runner = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert runner.stdout is not None
    pid = int(runner.stdout.readline())
    os.kill(pid, 0)
    runner.send_signal(signal.SIGKILL)
    runner.communicate()
    wait_for(lambda: not _group_lives(pid))


def _group_lives(leader: int) -> bool:
    """Whether a process of the group does anything still; one that nobody has asked for its status does not."""
    listed = subprocess.run(["ps", "-eo", "pgid=,stat="], capture_output=True, text=True, check=True).stdout
    return any(
        int(group) == leader and not state.startswith("Z") for group, state in map(str.split, listed.splitlines())
    )


def test_closing_it_leaves_nothing(child: Child) -> None:
    child.ask("describe")
    pid = child.pid
    assert pid is not None
    child.close()
    wait_for(lambda: not _group_lives(pid))
    assert child.pid is None


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"registry": "1 / 0\n"}, r"ZeroDivisionError.*registry.py, line 1"),
        ({"lamps": "def (:\n"}, r"SyntaxError.*lamps.py, line 1"),
        ({"registry": "import sys\nsys.exit('not today')\n"}, "not today"),
        ({"lamps": "from tau2 import never\n"}, "ImportError"),
    ],
)
def test_code_that_cannot_be_imported_is_refused_with_its_line(
    tmp_path: Path, changed: dict[str, str], said: str
) -> None:
    child = Child(write_small_tau2(tmp_path, **changed) / "src")
    try:
        with pytest.raises(ChildRefused, match=said):
            child.ask("describe")
    finally:
        child.close()


def test_packages_that_other_parts_need_may_be_missing_until_they_are_used(tmp_path: Path) -> None:
    voice = "import nosuchvoice.mixer as mixer\n@mixer.loud(3)\ndef sing(): ...\nclass Choir(mixer.Group): ...\n"
    child = Child(write_small_tau2(tmp_path, registry=voice) / "src")
    try:
        assert child.ask("describe")["stand_ins"] == ["nosuchvoice"]
    finally:
        child.close()


def test_an_interpreter_that_is_not_there_is_named(small: Path) -> None:
    with pytest.raises(ChildRefused, match=r"/no/python cannot be started: No such file"):
        Child(small / "src", python="/no/python").ask("describe")


def test_a_checkout_a_package_folder_and_a_wheel_are_the_same_code(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAU2_FLEET_SCRATCH_DIR", str(tmp_path / "scratch"))
    wheel = tmp_path / "tau2-7.1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path in (small / "src").rglob("*.py"):
            archive.write(path, path.relative_to(small / "src"))
        archive.writestr("tau2-7.1.dist-info/METADATA", "Metadata-Version: 2.1\nName: tau2\nVersion: 7.1\n")
    places = [find(str(path)) for path in (small, small / "src", small / "src" / "tau2", wheel, wheel)]
    assert len({place.digest for place in places}) == 1
    assert [place.version for place in places] == ["7.1"] * 5
    assert places[-1].root.is_relative_to(tmp_path / "scratch")
    (small / "src" / "tau2" / "gone.py").symlink_to(small / "nowhere.py")
    (small / "src" / "tau2" / "folder.py").mkdir()
    (small / "pyproject.toml").write_text("project = 3", encoding="utf-8")
    odd = find(str(small))
    assert (odd.digest, odd.version) == (places[0].digest, None)
    (small / "src" / "tau2" / "more.py").write_text("", encoding="utf-8")
    assert find(str(small)).digest != places[0].digest


@pytest.mark.parametrize("what", ["nowhere", "empty", "broken.whl"])
def test_what_is_no_tau2_is_refused_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    monkeypatch.setenv("TAU2_FLEET_SCRATCH_DIR", str(tmp_path / "scratch"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.whl").write_bytes(b"PK but no zip")
    with pytest.raises(UserError, match=rf"benchmark.path=.*{what}: "):
        find(str(tmp_path / what))
