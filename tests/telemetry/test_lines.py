"""Log lines: the form that docs/formats.md gives, and the recipes people have for it."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

from tau2_fleet.telemetry.events import SimulationDone, StepComplete
from tau2_fleet.telemetry.levels import INFO, PROFILE, USER_JUDGE
from tau2_fleet.telemetry.lines import event_line, level_of, stamp
from tests.telemetry.events_of import llm_call, simulation, tool_call

TELECOM_ID = "[mobile_data_issue]user_abroad_roaming_enabled_off|bad_network_preference[PERSONA:None]"


def test_an_llm_call_is_the_line_of_the_specification() -> None:
    with simulation():
        event = llm_call()
    event.time = time.mktime((2025, 12, 23, 10, 15, 32, 0, 0, -1)) + 0.456
    assert event_line(event) == (
        "[PROFILE] 2025-12-23 10:15:32.456 task=retail_1 trial=0 thread=12345 type=llm_call model=nemotron"
        " call_type=vllm step=5 replica=agent/0 duration_ms=1234.56 queue_ms=12.50 input_tokens=2000"
        " output_tokens=80 cached_tokens=1500 cost_usd=0.002500 attempts=1 has_tool_calls=True"
    )


def test_every_type_of_the_table_has_its_level_and_fields() -> None:
    with simulation():
        lines = {
            "llm_call": event_line(llm_call(connect_ms=30.0, error="Timeout after 600 s")),
            "expert_call": event_line(llm_call("expert_call", expert="expert-1", replica=None)),
            "tool_call": event_line(tool_call(error=True)),
            "step_complete": event_line(StepComplete(1300.0, "agent", "env", 5)),
            "user_sim": event_line(llm_call("user_sim")),
            "evaluator": event_line(llm_call("evaluator", step=None)),
            "simulation": event_line(SimulationDone("user_stop", 1.0, 50000.0, 0.12)),
        }
    assert all(line is not None and f"type={name} " in line for name, line in lines.items())
    assert "connect_ms=30.00" in str(lines["llm_call"])
    assert "error=Timeout_after_600_s" in str(lines["llm_call"])
    assert str(lines["expert_call"]).startswith("[PROFILE]")
    assert str(lines["expert_call"]).endswith("expert=expert-1")
    assert str(lines["tool_call"]).endswith(
        "type=tool_call function=get_order_details call_type=local_function step=6 requestor=assistant"
        " duration_ms=0.75 error=True"
    )
    assert str(lines["step_complete"]).endswith("step=5 total_duration_ms=1300.00 from_role=agent to_role=env")
    assert str(lines["user_sim"]).startswith("[USER_JUDGE]")
    assert str(lines["evaluator"]).startswith("[USER_JUDGE]")
    assert "step=" not in str(lines["evaluator"])
    levels = [level_of(event) for event in (llm_call(), llm_call("user_sim"), SimulationDone("user_stop", 1, 1, 0))]
    assert levels == [PROFILE, USER_JUDGE, INFO]


def test_a_value_is_one_token_whatever_it_holds() -> None:
    with simulation("telecom", f"{TELECOM_ID} and\tmore\x1b[31m\n"):
        line = event_line(llm_call(model="my model", error="two words\nand a line\x07"))
    assert line is not None
    assert line.isprintable()
    words = line.split(" ")
    assert words[0] == "[PROFILE]"
    assert all(re.fullmatch(r"[a-z_]+=\S+", word) for word in words[3:])
    assert f"task=telecom_{TELECOM_ID}_and_more\\x1b[31m_" in words


def test_outside_a_simulation_the_task_is_global() -> None:
    line = event_line(llm_call("evaluator"))
    assert line is not None
    assert " task=global trial=- thread=- type=evaluator " in line


def test_the_time_has_three_digits_of_milliseconds_within_and_across_seconds() -> None:
    base = time.mktime((2025, 1, 1, 0, 0, 0, 0, 0, -1))
    stamps = [stamp(base + offset) for offset in (0.0, 0.0015, 0.9996, 1.0, 61.25)]
    assert [text[-12:] for text in stamps] == [
        "00:00:00.000", "00:00:00.001", "00:00:00.999", "00:00:01.000", "00:01:01.250",
    ]  # fmt: skip


def test_the_old_recipes_of_grep_and_awk_work_on_the_lines(tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    with simulation():
        events = [
            llm_call(duration_ms=100.0),
            llm_call(duration_ms=300.0),
            llm_call("expert_call", expert="expert-1", duration_ms=9000.0, model="gpt-5"),
            tool_call(duration_ms=2.5),
            tool_call(duration_ms=1.5, function="calculate"),
        ]
    with simulation("telecom", TELECOM_ID, 1, 77):
        events.append(llm_call(duration_ms=800.0, model="other"))
    log.write_text("".join(f"{event_line(event)}\n" for event in events))

    assert _shell(f'grep -c "type=expert_call" {log}') == "1"
    assert _shell(f"grep 'type=llm_call' {log} | grep -c 'task=retail_1 '") == "2"
    assert _shell(f"grep -cF 'task=telecom_{TELECOM_ID} trial=1 ' {log}") == "1"
    mean = "awk -F'duration_ms=' '{split($2, a, \" \"); s += a[1]; n++} END {printf \"%.1f\", s / n}'"
    assert _shell(f"grep 'type=llm_call' {log} | {mean}") == "400.0"
    by_model = (
        'awk \'/type=llm_call/ { for (i = 1; i <= NF; i++) { split($i, kv, "="); f[kv[1]] = kv[2] }'
        ' s[f["model"]] += f["duration_ms"] } END { for (m in s) print m, s[m] }\' ' + str(log) + " | sort"
    )
    assert _shell(by_model) == "nemotron 400\nother 800"
    slowest = f"grep -oE 'duration_ms=[0-9.]+' {log} | cut -d= -f2 | sort -rn | head -1"
    assert _shell(slowest) == "9000.00"


def _shell(command: str) -> str:
    return subprocess.run(command, shell=True, check=True, capture_output=True, text=True).stdout.strip()
