"""Training sets: what is learnt, from which tasks, and what the data card says of it."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from tau2_fleet.benchmark.domains import load_domain
from tau2_fleet.export.command import main
from tau2_fleet.export.training import CARD
from tau2_fleet.llm.token_ids import TokenChain, TokenIds
from tests.export.conftest import write_records
from tests.run.runs import records

Json = dict[str, Any]


def export(form: str, directory: Path, target: Path, *options: str) -> list[Json]:
    assert main([str(directory), "--format", form, "-o", str(target), *options]) == 0
    return [json.loads(line) for line in (target / "train.jsonl").read_text().splitlines()]


FORMS: dict[str, list[str]] = {"texts": [], "objects": ["--objects"]}


def test_sft_has_the_agents_side_of_each_conversation(run_dir: Path, tmp_path: Path, known_secret: str) -> None:
    lines = export("sft", run_dir, tmp_path / "all", "--all")
    kept = records(run_dir)
    assert [(line["domain"], line["task_id"], line["trial"]) for line in lines] == [
        (record["domain"], record["task_id"], record["trial"]) for record in kept
    ]
    tools = {domain: load_domain(domain).agent_tools for domain in ("retail", "airline", "telecom")}
    prompts = {
        prompt["digest"]: prompt["text"]
        for prompt in map(json.loads, (run_dir / "prompts.jsonl").read_text().splitlines())
    }
    for line, record in zip(lines, kept, strict=True):
        system, greeting, *rest = line["messages"]
        assert (system["content"], greeting["role"]) == (prompts[record["prompts"]["agent"]], "assistant")
        assert line["tools"] == tools[line["domain"]]
        assert len(line["messages"]) == len(line["authors"]) == len(line["loss_mask"])
        assert line["authors"][:3] == ["system", "benchmark", "user"]
        for message, author, mask in zip(line["messages"], line["authors"], line["loss_mask"], strict=True):
            assert mask == (author == "agent")
            assert message.get("weight") == (mask if message["role"] == "assistant" else None)
        texts = [m["content"] for m in record["messages"] if _is_agents(m)]
        assert [m["content"] or None for m in rest] == [
            text and text.replace(known_secret, "[redacted]") for text in texts[1:]
        ]
        calls = [call for m in record["messages"] if _is_agents(m) for call in m.get("tool_calls") or []]
        sent = [call for m in rest for call in m.get("tool_calls", [])]
        assert [json.loads(call["function"]["arguments"]) for call in sent] == [call["arguments"] for call in calls]
        answered = [m["tool_call_id"] for m in rest if m["role"] == "tool"]
        assert answered == [call["id"] for call in sent]


def test_arguments_are_objects_where_a_chat_template_wants_them(run_dir: Path, tmp_path: Path) -> None:
    texts, objects = (export("sft", run_dir, tmp_path / name, "--all", *words) for name, words in FORMS.items())
    sent = [
        [call["function"]["arguments"] for line in lines for m in line["messages"] for call in m.get("tool_calls", [])]
        for lines in (texts, objects)
    ]
    assert sent[0]
    assert [json.loads(one) for one in sent[0]] == sent[1]


def _is_agents(message: Json) -> bool:
    if message["role"] == "user":
        return not message["tool_calls"]
    return message["role"] == "assistant" or message["requestor"] == "assistant"


def test_only_train_tasks_unless_all_are_asked_for(run_dir: Path, tmp_path: Path) -> None:
    lines = export("sft", run_dir, tmp_path / "train", "--min-reward", "1")
    train = {domain: set(load_domain(domain).split("train") or ()) for domain in ("retail", "airline", "telecom")}
    wanted = [r for r in records(run_dir) if r["task_id"] in train[r["domain"]] and r["reward"] == 1.0]
    assert 0 < len(lines) == len(wanted) < len(records(run_dir)) * 2 / 3
    card = (tmp_path / "train" / "README.md").read_text()
    summary = json.loads((run_dir / "summary.json").read_text())
    assert card.startswith("---\nlicense: other\n")
    for told in (
        f"| simulations | {len(lines)} |",
        "| left out: of tasks outside the train split |",
        '| filters | `{"min_reward": 1.0}` |',
        summary["result_digest"],
        summary["digests"]["retail"]["tasks.json"],
        "## Licence",
    ):
        assert told in card, told
    assert "mean nothing" not in card
    export("sft", run_dir, tmp_path / "all", "--all")
    assert "mean nothing" in (tmp_path / "all" / "README.md").read_text()


def test_turns_of_experts_and_spoilt_turns_are_learnt_only_when_they_are_to_be(run_dir: Path, tmp_path: Path) -> None:
    [record] = [line for line in records(run_dir) if line["domain"] == "retail"][:1]
    turns = [message for message in record["messages"] if (message.get("raw_data") or {}).get("author")]
    turns[0]["raw_data"] = {"author": "expert-2", "called_by": "agent"}
    turns[1]["raw_data"]["conditions"] = ["agent: cut"]
    turns[2]["raw_data"]["thinking"] = "Hm."
    write_records(tmp_path / "run", [record])
    number = len(turns)
    for whose, learnt in (("agent", number - 2), ("experts", 1), ("both", number - 1)):
        [line] = export("sft", tmp_path / "run", tmp_path / whose, "--all", "--train-on", whose)
        assert (sum(line["loss_mask"]), line["authors"].count("expert-2")) == (learnt, 1)
        assert not any("reasoning_content" in message for message in line["messages"])
    [line] = export("sft", tmp_path / "run", tmp_path / "thinking", "--all", "--thinking")
    assert [message["reasoning_content"] for message in line["messages"] if "reasoning_content" in message] == ["Hm."]


def test_a_solo_agent_learns_to_call_the_tool_that_ends_its_work(run_dir: Path, tmp_path: Path) -> None:
    record = records(run_dir)[0]
    last = max(at for at, message in enumerate(record["messages"]) if message["role"] == "assistant")
    stop = {"role": "assistant", "content": "###STOP###", "tool_calls": None}
    record["messages"][last:] = [{**stop, "raw_data": {"author": "agent", "dropped_calls": []}}]
    write_records(
        tmp_path / "run",
        [{**record, "trial": 0}, {**record, "trial": 1, "messages": [*record["messages"][:last], stop]}],
    )
    called, said = (line["messages"][-1] for line in export("sft", tmp_path / "run", tmp_path / "out", "--all"))
    assert called["content"] is None
    assert [call["function"] for call in called["tool_calls"]] == [{"name": "done", "arguments": "{}"}]
    assert (said["content"], said.get("tool_calls")) == ("###STOP###", None)


@pytest.mark.parametrize("kept", [True, False])
def test_records_of_earlier_versions_get_the_domains_tools(
    run_dir: Path, tmp_path: Path, kept: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    [record] = [line for line in records(run_dir) if line["domain"] == "airline"][:1]
    record["tools"] = {} if kept else None
    write_records(tmp_path / "run", [record])
    [line] = export("sft", tmp_path / "run", tmp_path / "out", "--all")
    assert line["authors"][0] == "benchmark"
    assert "1 have no system prompt: prompts.jsonl" in capsys.readouterr().out
    assert line["tools"] == ([] if kept else load_domain("airline").agent_tools)


def test_conversations_that_the_infrastructure_ended_are_left_out(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_records(tmp_path / "run", [{**records(run_dir)[0], "termination_reason": "deadline", "reward": 0.0}])
    assert main([str(tmp_path / "run"), "--format", "sft", "--all"]) == 1
    assert "no simulation to learn from: 1 ended by the infrastructure" in capsys.readouterr().err
    assert not (tmp_path / "run" / "export" / "sft").exists()


def test_dpo_pairs_trials_of_one_task_behind_their_common_beginning(
    run_dir: Path, tmp_path: Path, known_secret: str
) -> None:
    lines = export("dpo", run_dir, tmp_path / "dpo", "--all")
    kept = {(r["domain"], r["task_id"], r["trial"]): r for r in records(run_dir)}
    assert len(lines) == 2 * len({key[:2] for key in kept})  # two trials passed, one failed
    whole = {
        (line["domain"], line["task_id"], line["trial"]): line
        for line in export("sft", run_dir, tmp_path / "sft", "--all")
    }
    card = (tmp_path / "dpo" / CARD).read_text()
    assert (
        f"{fmean(line['prompt_messages'] for line in lines):.1f}"
        in card.partition("messages of a prompt, on average")[2]
    )
    for line in lines:
        task = line["domain"], line["task_id"]
        assert (line["chosen_reward"], line["rejected_reward"]) == (1.0, 0.0)
        assert line["prompt"][0]["role"] == "system"
        assert line["prompt_messages"] == len(line["prompt"]) > 2
        assert line["parted_by"] == "agent"
        for side in ("chosen", "rejected"):
            conversation = whole[(*task, line[f"{side}_trial"])]
            assert _said([*line["prompt"], *line[side]]) == _said(conversation["messages"])
            assert len(line[side]) == len(line[f"{side}_loss_mask"]) == len(line[f"{side}_authors"])
            assert any(line[f"{side}_loss_mask"])
        assert _said(line["chosen"][:1]) != _said(line["rejected"][:1])
        calls = [call["id"] for message in line["prompt"] for call in message.get("tool_calls", [])]
        assert [m["tool_call_id"] for m in line["prompt"] if m["role"] == "tool"] == calls[: len(calls)]
        assert line["tools"] == whole[(*task, 0)]["tools"]


def _said(messages: list[Json]) -> list[Any]:
    return [(m["role"], m["content"], [call["function"] for call in m.get("tool_calls", [])]) for m in messages]


def test_dpo_answers_calls_by_the_ids_of_the_prompt(run_dir: Path, tmp_path: Path) -> None:
    better = next(r for r in records(run_dir) if (r["domain"], r["trial"], r["reward"]) == ("retail", 0, 1.0))
    worse = json.loads(json.dumps(better).replace('"id": "call', '"id": "other'))
    worse |= {"trial": 1, "reward": 0.0}
    answer = next(message for message in worse["messages"] if message["role"] == "tool")
    assert answer["id"].startswith("other")
    answer["content"] = "Error: not today"
    write_records(tmp_path / "run", [better, worse])
    [line] = export("dpo", tmp_path / "run", tmp_path / "out", "--all")
    assert line["parted_by"] == "tool"
    [called] = line["prompt"][-1]["tool_calls"]
    assert [line[side][0]["tool_call_id"] for side in ("chosen", "rejected")] == [called["id"]] * 2
    assert main([str(tmp_path / "run"), "--format", "dpo", "--all", "--parted-by-agent"]) == 2


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        (lambda r: r["trial"] == 0, "every task here (12) has one: run with num_trials=4"),
        (lambda r: r["trial"] < 2, "no task here (12) has such"),
    ],
)
def test_dpo_is_refused_where_no_pair_can_be(
    run_dir: Path, tmp_path: Path, wanted: Any, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_records(tmp_path / "run", [record for record in records(run_dir) if wanted(record)])
    assert main([str(tmp_path / "run"), "--format", "dpo", "--all"]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "run" / "export" / "dpo").exists()


def test_token_ids_become_sequences_parted_where_prompts_do_not_go_on(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = next(line for line in records(run_dir) if line["domain"] == "retail" and line["trial"] == 0)
    chain = TokenChain()
    agents = [call for call in record["calls"] if call["role"] == "agent"][:5]
    given = [
        TokenIds([1, 2], [3], [-0.5]),
        TokenIds([1, 2, 3, 4], [5], None),  # goes on
        TokenIds([1, 2, 3, 4, 5, 6], [7], [-1.0]),  # cut
        TokenIds([1, 2, 3, 4, 5, 6], [], []),  # empty: asked for again
        TokenIds([1, 9, 3], [8], [-2.0]),  # rendered otherwise
    ]
    for call, ids in zip(agents, given, strict=True):
        call["tokens"] = chain.packed(ids)
    agents[2]["conditions"] = ["cut"]
    agents[3]["empty"] = True
    write_records(tmp_path / "run", [record])
    [line] = export("sft", tmp_path / "run", tmp_path / "out", "--all")
    assert line["token_sequences"] == [
        {
            "ids": [1, 2, 3, 4, 5, 6, 7],
            "loss_mask": [0, 0, 1, 0, 1, 0, 0],
            "logprobs": [None, None, -0.5, None, None, None, -1.0],
        },
        {"ids": [1, 9, 3, 8], "loss_mask": [0, 0, 0, 1], "logprobs": [None, None, None, -2.0]},
    ]
    places = [record["calls"].index(call) for call in agents]
    assert line["token_breaks"] == [
        {"call": places[3], "same": 6, "of": 7},
        {"call": places[4], "same": 1, "of": 6},
    ]
    assert "1 with token ids; in 0 prompts begin with all that was sampled before" in capsys.readouterr().out
    assert "| conversations with token ids | 1 |" in (tmp_path / "out" / "README.md").read_text()
