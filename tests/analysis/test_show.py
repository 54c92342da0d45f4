"""`tau2-fleet show`: a trajectory, and why its reward is 0, in the terminal."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tau2_fleet.analysis.explain import ComparedCall, GoldCheck, gold_checks_of_task, reasons
from tau2_fleet.analysis.show import main
from tau2_fleet.benchmark.domains import load_domain
from tau2_fleet.display.formats import TableFormat
from tau2_fleet.errors import UserError
from tau2_fleet.record.line import encode_line
from tau2_fleet.record.overview import overviews
from tests.analysis.damaged import damaged_records
from tests.telemetry.run_directory import write_run


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run").directory


def _shown(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out


def _rewrite(run_dir: Path, change: dict[str, Any], which: int = 0) -> dict[str, Any]:
    """Put one changed record in the place of the record file."""
    record: dict[str, Any] = json.loads((run_dir / "simulations.jsonl").read_text().splitlines()[which])
    record.update(change)
    (run_dir / "simulations.jsonl").write_text(json.dumps(record) + "\n")
    return record


def test_without_more_it_lists_all_simulations(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = _shown(capsys, run_dir).splitlines()
    assert lines[0].split() == ["simulation", "trial", "reward", "ended", "sub-rewards", "time", "cost"]
    assert len([line for line in lines if re.match(r"(retail|airline)/\d ", line)]) == 10
    failed = next(line for line in lines if line.startswith("retail/2 "))
    assert re.search(r"0 +user_stop +DB 0  COMMUNICATE 1  \(ACTION 0\) +[\d.]+ s +\$\d", failed)
    assert lines[-1] == ("7 of 10 with reward 1, pass^1 0.700 [0.397, 0.892]; --task retail/2 shows one, --failed why")


def test_a_failed_simulation_shows_its_reason_in_one_screen(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = _shown(capsys, run_dir, "--failed")
    blocks = text.split("\n\n")
    assert [block.split()[0] for block in blocks] == ["retail/2", "retail/5", "airline/2"]
    assert all(len(block.splitlines()) <= 24 for block in blocks)
    for wanted in (
        "reward 0  ended as user_stop  DB 0  COMMUNICATE 1  (ACTION 0)",
        "because DB: the database differs from the one after the gold actions in 1 field",
        'agent orders/#W32 items[0].item_id: "9" instead of "7"',
        '✓ get_order_details(order_id="#W30")',
        '✗ modify_order(order_id="#W32", item="7")',
        "called with item: nothing instead of '7' (the call failed)",
    ):
        assert " ".join(wanted.split()) in " ".join(blocks[0].split()), wanted


def test_a_simulation_in_full_has_turns_with_authors_calls_and_results(
    run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = _shown(capsys, run_dir, "--task", "retail/4")
    assert "agent (written by expert-1) +" in text
    assert '→ get_order_details(order_id="#W50")' in text
    assert '← {"status": "pending"}' in text
    assert text.index("Hi! How can I help you today?") < text.index("Thanks ###STOP###") < text.index("reward 1")
    assert "<instructions>" not in text


def test_the_prompts_are_shown_as_they_were_sent(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(run_dir), "--task", "retail/4", "--prompts"]) == 0
    text, told = capsys.readouterr()
    assert told == ""
    assert "system prompt of the agent" in text
    assert "<instructions>\nbe kind\n</instructions>" in text
    assert "you are Yusuf" in text


def test_prompts_that_are_not_there_are_said_to_be_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = write_run(tmp_path / "run", {"retail": 2}).directory
    (run_dir / "prompts.jsonl").unlink()
    assert main([str(run_dir), "--task", "retail/1", "--prompts"]) == 0
    assert "is missing, or holds none of this simulation's prompts" in " ".join(capsys.readouterr().err.split())
    assert main([str(run_dir), "--task", "retail/1"]) == 0
    assert capsys.readouterr().err == ""


def test_task_trial_and_parts_of_long_ids_choose(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = write_run(tmp_path / "run", {"retail": 3, "airline": 2}, trials=2).directory
    assert _shown(capsys, run_dir, "--task", "1").count("seed 626729") == 4
    assert _shown(capsys, run_dir, "--task", "airline/1", "--trial", 1).count("seed 626729") == 1
    _rewrite(run_dir, {"domain": "telecom", "task_id": "[mobile_data_issue]airplane_mode_on|x[PERSONA:None]"})
    assert "telecom/[mobile_data_issue]airplane" in _shown(capsys, run_dir, "--task", "Airplane_Mode")


def test_the_last_record_of_a_simulation_counts_and_torn_lines_are_passed_over(
    run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run_dir / "simulations.jsonl"
    record = json.loads(path.read_text().splitlines()[2])
    again = {**record, "reward": 1.0, "attempt": 1, "sub_rewards": {"DB": 1.0}}
    path.write_text(path.read_text() + json.dumps(again) + "\n" + json.dumps(record)[:50])
    assert "8 of 10 with reward 1" in _shown(capsys, run_dir)


def test_what_models_wrote_cannot_steer_the_terminal(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evil = "[red]hi[/red]\x1b]0;owned\x07\x1b[2J\u202e"
    messages = [
        {"role": "user", "content": evil, "turn_idx": 0, "tool_calls": None},
        {"role": "assistant", "content": None, "turn_idx": 1, "raw_data": {"author": evil},
         "tool_calls": [{"id": "1", "name": evil, "arguments": {"a": evil}, "requestor": "assistant"}]},
        {"role": "tool", "id": "1", "content": evil, "requestor": "assistant", "error": True, "turn_idx": 2},
    ]  # fmt: skip
    _rewrite(run_dir, {"messages": messages, "error": evil, "db_diff": [{"table": evil}], "notes": {"x": evil}}, 2)
    text = _shown(capsys, run_dir, "--task", "retail/2", "--prompts", "--full")
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "\u202e" not in text
    assert "[red]hi[/red]\\x1b]0;owned\\x07\\x1b[2J\\u202e" in text


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"reward": 1.0}, []),
        (
            {"termination_reason": "deadline", "error": "longer than 60 s", "sub_rewards": {}, "reward_info": {}},
            ["it ended as deadline, which is never rewarded: longer than 60 s"],
        ),
        (
            {
                "sub_rewards": {"COMMUNICATE": 0.0, "DB": 1.0},
                "reward_info": {
                    "reward_basis": ["COMMUNICATE", "DB"],
                    "communicate_checks": [{"info": "42", "met": False}, {"info": "7", "met": True}],
                },
            },
            ["COMMUNICATE: the agent never said '42'"],
        ),
        (
            {
                "sub_rewards": {"ENV_ASSERTION": 0.0},
                "reward_info": {
                    "reward_basis": ["ENV_ASSERTION"],
                    "env_assertions": [
                        {
                            "env_assertion": {"func_name": "is_on", "arguments": {"x": 1}, "assert_value": False},
                            "met": False,
                        }
                    ],
                },
            },
            ["ENV_ASSERTION: not so at the end: is_on(x=1) is False"],
        ),
        (
            {
                "sub_rewards": {"NL_ASSERTION": 0.0},
                "reward_info": {
                    "reward_basis": ["NL_ASSERTION"],
                    "nl_assertions": [{"nl_assertion": "is polite", "met": False, "justification": "rude"}],
                },
            },
            ["NL_ASSERTION: the judge denies 'is polite' (rude)"],
        ),
    ],
)
def test_every_kind_of_failure_has_its_reason(change: dict[str, Any], expected: list[str]) -> None:
    record = {"reward": 0.0, "termination_reason": "user_stop", **change}
    assert list(reasons(record)) == expected


def test_a_call_near_a_gold_action_says_in_what_it_differs() -> None:
    gold = GoldCheck(ComparedCall("modify", {"a": 1, "b": 2}, "assistant"), False)
    assert gold.differing(ComparedCall("modify", {"a": 1, "b": 3, "c": 4}, "assistant")) == [
        "b: 3 instead of 2", "c: 4 instead of nothing",
    ]  # fmt: skip


def test_gold_actions_of_a_run_that_was_cut_off_come_from_the_benchmark() -> None:
    record: dict[str, Any] = {"domain": "mock", "task_id": "create_task_1", "messages": []}
    (check,) = gold_checks_of_task(record, Path())
    assert check.gold.name == "create_task"
    assert not check.matched
    call = {"id": "1", "name": "create_task", "arguments": check.gold.arguments, "requestor": "assistant"}
    record["messages"] = [{"role": "assistant", "tool_calls": [call]}]
    assert gold_checks_of_task(record, Path())[0].matched
    assert gold_checks_of_task({"domain": "mock", "task_id": "no such task", "messages": []}, Path()) == []


def test_mistakes_are_said_in_a_line(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, said in (
        ([tmp_path / "none"], "is no run directory: it is not there"),
        ([run_dir / "simulations.jsonl"], "is no run directory: it is a file"),
        ([tmp_path], f"holds 1 runs; choose one: {run_dir}"),
        ([run_dir, "--task", "banking/9"], "no simulation of banking/9; there are airline/0, airline/1"),
        ([run_dir, "--trial", "7"], "no simulation of trial 7; the last is trial 0"),
    ):
        assert main([str(argument) for argument in arguments]) == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        assert said in captured.err
        assert len(captured.err.splitlines()) == 1


def test_a_format_that_there_is_not_names_those_that_there_are(
    run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([str(run_dir), "--format", "pdf"])
    error = capsys.readouterr().err
    assert "pdf" in error
    assert all(form.value in error.splitlines()[-1] for form in TableFormat)


def test_of_many_runs_below_a_folder_the_newest_are_named(tmp_path: Path) -> None:
    for number in range(11):
        run_dir = tmp_path / "2026-01-01" / f"12-00-{number:02d}"
        run_dir.mkdir(parents=True)
        (run_dir / "simulations.jsonl").touch()
    with pytest.raises(UserError) as caught:
        overviews(tmp_path)
    assert "holds 11 runs" in str(caught.value)
    assert "12-00-10 and 3 more" in str(caught.value)
    assert "12-00-02" not in str(caught.value)


def test_it_can_be_piped_into_a_pager_that_quits(run_dir: Path) -> None:
    command = f"{sys.executable} -m tau2_fleet show {run_dir} --failed | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("retail/2 trial 0")
    assert done.stderr == ""


@pytest.fixture(scope="module")
def damaged_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty failed simulations of airline, and one that passed."""
    directory = tmp_path_factory.mktemp("damaged")
    kinds = damaged_records(load_domain("airline"), 6)
    records = [record for kind in kinds.values() for record in kind]
    records.append({**records[0], "task_id": "passed", "reward": 1.0})
    with (directory / "simulations.jsonl").open("wb") as file:
        for trial, record in enumerate(records):
            file.write(encode_line({**record, "trial": trial}))
    return directory


def test_many_failures_are_one_screen_of_causes_with_an_example_each(
    damaged_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(damaged_dir), "--failed"]) == 0
    text = capsys.readouterr().out
    assert len(text.splitlines()) <= 50
    for words in ("wrong or missing action", "conversation limit", "infrastructure ending", "transfer to a human"):
        assert words in text
    assert "such as airline/" in text


def test_ids_come_whole_and_once_each(damaged_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(damaged_dir), "--failed", "--ids"]) == 0
    names = capsys.readouterr().out.splitlines()
    assert len(names) == len(set(names)) > 2
    assert all(re.fullmatch(r"airline/\d+", name) for name in names)


def test_a_task_without_failures_is_said_to_have_none(damaged_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(damaged_dir), "--failed", "--task", "airline/passed"]) == 0
    assert capsys.readouterr().out == "the only simulation has reward 1\n"


@pytest.mark.parametrize(
    ("form", "line"),
    [
        ("md", r"\| airline/passed \| \d+ \| 1 \| .*\|"),
        ("latex", r"airline/passed & \d+ & 1 & .*\\\\"),
        ("csv", r"airline/passed,\d+,1,.*"),
    ],
)
def test_the_table_comes_in_the_formats_of_other_programs(
    damaged_dir: Path, capsys: pytest.CaptureFixture[str], form: str, line: str
) -> None:
    assert main([str(damaged_dir), "--format", form]) == 0
    assert re.search(rf"^{line}$", capsys.readouterr().out, re.M)
