from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tau2_fleet.errors import UserError
from tau2_fleet.record.line import SimulationKey
from tau2_fleet.record.lock import DirectoryLock
from tau2_fleet.record.store import Store
from tests.batch.records import make_record

FIRST, SECOND = SimulationKey("retail", "1", 0), SimulationKey("retail", "2", 0)


def test_what_is_appended_is_there_after_reopening(tmp_path: Path):
    with Store(tmp_path) as store:
        store.append(make_record(FIRST, reward=1.0))
        store.append(make_record(SECOND, reward=0.0, reason="max_steps"))
    with Store(tmp_path) as store:
        assert {key: entry.reward for key, entry in store.entries.items()} == {FIRST: 1.0, SECOND: 0.0}
        assert store.finished == {FIRST, SECOND}
        assert store.read(store.entries[SECOND])["termination_reason"] == "max_steps"
        assert store.entries[FIRST].cost_usd == 0.25


def test_the_last_record_of_a_simulation_counts(tmp_path: Path):
    with Store(tmp_path) as store:
        store.append(make_record(FIRST, reward=0.0, reason="infrastructure_error", error="server down"))
        assert store.finished == set()
        store.append(make_record(FIRST, reward=1.0, attempt=1))
    with Store(tmp_path) as store:
        assert store.finished == {FIRST}
        assert [record["attempt"] for record in store.records("retail")] == [1]


@pytest.mark.parametrize("kept", [1, 40, -2])
def test_a_torn_last_line_is_dropped_and_overwritten(tmp_path: Path, kept: int):
    with Store(tmp_path) as store:
        store.append(make_record(FIRST))
    path = tmp_path / "simulations.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + make_record(SECOND).as_line()[:kept])
    with Store(tmp_path) as store:
        assert set(store.entries) == {FIRST}
        store.append(make_record(SECOND))
    lines = path.read_bytes().splitlines()
    assert [json.loads(line)["task_id"] for line in lines] == ["1", "2"]


def test_a_line_that_is_no_record_harms_no_other(tmp_path: Path):
    (tmp_path / "simulations.jsonl").write_bytes(b"\x00\xff\n[]\n{}\n" + make_record(FIRST).as_line())
    with Store(tmp_path) as store:
        assert set(store.entries) == {FIRST}
        assert store.read(store.entries[FIRST])["task_id"] == "1"


def test_two_runs_cannot_write_one_directory(tmp_path: Path):
    with Store(tmp_path), pytest.raises(UserError, match="another run"):
        Store(tmp_path)
    Store(tmp_path).close()


def test_the_lock_of_a_killed_run_is_free(tmp_path: Path):
    code = (
        "import sys, os, signal; from pathlib import Path; from tau2_fleet.record.store import Store; "
        "store = Store(Path(sys.argv[1])); os.kill(os.getpid(), signal.SIGKILL)"
    )
    process = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert process.returncode == -9
    Store(tmp_path).close()


def test_a_full_disk_is_one_clear_error_and_leaves_whole_lines_only(tmp_path: Path):
    code = f"""
import resource, signal, sys
from pathlib import Path
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from tau2_fleet.record.store import Store
from tau2_fleet.errors import UserError
from tau2_fleet.record.line import SimulationKey
from tests.batch.records import make_record
store = Store(Path({str(tmp_path)!r}))
length = len(make_record(SimulationKey("retail", "0", 0)).as_line())
resource.setrlimit(resource.RLIMIT_FSIZE, (length * 3 + 100, length * 3 + 100))
try:
    for index in range(10):
        store.append(make_record(SimulationKey("retail", str(index), 0)))
except UserError as error:
    print(error)
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "cannot store retail/3 trial 0" in process.stdout
    assert "resume=" in process.stdout
    with Store(tmp_path) as store:
        assert [key.task_id for key in store.entries] == ["0", "1", "2"]


def test_a_prompt_for_which_there_was_no_room_is_kept_once_there_is(tmp_path: Path):
    code = f"""
import resource
from pathlib import Path
from tau2_fleet.record.store import Store
from tau2_fleet.errors import UserError
store = Store(Path({str(tmp_path)!r}))
resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
store.keep_prompt("abc", "You are an agent.")
for _ in range(2):
    try:
        store.keep_prompt("def", "You are a customer. " * 5)
    except UserError as error:
        print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
store.keep_prompt("def", "You are a customer. " * 5)
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (
        process.stdout.count(f"cannot store a prompt in {tmp_path / 'prompts.jsonl'}: File too large; make room") == 2
    )
    lines = (tmp_path / "prompts.jsonl").read_text().splitlines()
    assert [json.loads(line)["digest"] for line in lines] == ["abc", "def"]


def test_a_directory_that_is_a_file_is_a_clear_error(tmp_path: Path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(UserError, match="cannot write the run directory"):
        Store(blocked / "run")


def test_integers_past_64_bits_and_lone_surrogates_survive(tmp_path: Path):
    record = make_record(FIRST)
    record.messages[0]["tool_calls"] = [{"id": "1", "name": "f", "arguments": {"n": 2**70, "s": "\ud800"}}]
    with Store(tmp_path) as store:
        store.append(record)
    with Store(tmp_path) as store:
        call = store.read(store.entries[FIRST])["messages"][0]["tool_calls"][0]
    assert call["arguments"] == {"n": 2**70, "s": "\ud800"}


def test_prompts_are_kept_once_over_all_attempts(tmp_path: Path):
    for _ in range(2):
        with Store(tmp_path) as store:
            store.keep_prompt("abc", "You are an agent.")
            store.keep_prompt("def", "You are a customer.")
    lines = (tmp_path / "prompts.jsonl").read_text().splitlines()
    assert [json.loads(line)["digest"] for line in lines] == ["abc", "def"]


def test_memory_holds_no_messages(tmp_path: Path):
    with Store(tmp_path) as store:
        entry = store.append(make_record(FIRST))
        assert not any(isinstance(getattr(entry, name), (list, dict)) for name in entry.__slots__)
        assert os.path.getsize(tmp_path / "simulations.jsonl") == entry.length


def test_what_is_remembered_of_a_simulation(tmp_path: Path):
    record = make_record(
        FIRST,
        reward=0.5,
        calls=[{"role": "agent", "step": 0, "trimmed_messages": count} for count in (2, 0, 4)],
        notes={"user_turns_as_agent": 3, "unseen_calls": 1},
        usage_by_role={"user": {"input_tokens": 10, "output_tokens": 3}, "agent": {"input_tokens": 5}},
        cost_by_role={"user": 0.25, "agent": 1.0},
        replies={"agent": {"cut": 2}},
        error="late",
    )
    with Store(tmp_path) as store:
        entry = store.append(record)
        again = store.append(make_record(FIRST, notes={"user_turns_as_agent": "odd"}))
        assert store.cost_usd == 1.5
    assert (entry.trimmed_calls, entry.user_turns_as_agent, entry.cost_unknown) == (2, 3, True)
    assert (entry.input_tokens, entry.output_tokens, entry.cost_usd) == (15, 3, 1.25)
    assert (entry.reward, entry.duration_s, entry.error, entry.transferred) == (0.5, 2.0, "late", False)
    assert entry.replies == (("agent", "cut", 2),)
    assert (entry.offset, again.offset) == (0, entry.length)
    assert (again.trimmed_calls, again.user_turns_as_agent, again.cost_unknown) == (0, 0, False)
    with Store(tmp_path) as store:
        assert store.entries == {FIRST: again}
        assert store.cost_usd == 1.5


def test_records_are_given_by_domain_and_choice_in_the_order_of_their_lines(tmp_path: Path):
    other = SimulationKey("airline", "1", 0)
    with Store(tmp_path) as store:
        for key in (FIRST, SECOND, other, FIRST):
            store.append(make_record(key))
        assert [one["task_id"] for one in store.records("retail")] == ["2", "1"]
        assert [one["task_id"] for one in store.records("retail", lambda key: key == FIRST)] == ["1"]
        assert [one["domain"] for one in store.records("airline")] == ["airline"]


def test_a_lock_that_was_given_stays_its_givers(tmp_path: Path):
    with DirectoryLock(tmp_path) as lock:
        Store(tmp_path, lock).close()
        with pytest.raises(UserError, match="another run"):
            Store(tmp_path)
    (tmp_path / "simulations.jsonl").unlink()
    (tmp_path / "simulations.jsonl").mkdir()
    with pytest.raises(UserError, match=f"^cannot write the run directory {tmp_path}: Is a directory$") as told:
        Store(tmp_path)
    DirectoryLock(tmp_path).close()
    assert told.tb is not None  # what failed is still in memory, and holds no lock


def test_a_closed_record_holds_no_file_open(tmp_path: Path):
    def open_here() -> list[str]:
        links = [Path("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")]
        found = [os.readlink(link) for link in links if link.is_symlink()]
        return sorted(Path(path).name for path in found if path.startswith(str(tmp_path)))

    store = Store(tmp_path)
    assert open_here() == [".lock", "prompts.jsonl", "simulations.jsonl"]
    store.close()
    assert open_here() == []


def test_prompts_that_are_damaged_are_passed_over_and_a_torn_one_is_cut_off(tmp_path: Path):
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(b'{"digest":"a","text":"x"}\n[]\n{"text":"y"}\n{"digest":"b","te')
    with Store(tmp_path) as store:
        store.keep_prompt("a", "x")
        store.keep_prompt("b", "z")
    assert path.read_bytes() == (b'{"digest":"a","text":"x"}\n[]\n{"text":"y"}\n{"digest":"b","text":"z"}\n')
