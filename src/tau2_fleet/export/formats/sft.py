"""`--format sft`: conversations to fine-tune on, in OpenAI's form with tools, a line each, beside a data card."""

from __future__ import annotations

import argparse
from functools import cache

import orjson

from tau2_fleet.export.conversation import Turn, agent_turns
from tau2_fleet.export.export_format import Arguments, Export
from tau2_fleet.export.runs import Json, Run
from tau2_fleet.export.token_sequences import tokens_of
from tau2_fleet.export.training import CARD, Selection, add_training_arguments, card
from tau2_fleet.record.atomic import replaced, write_text
from tau2_fleet.record.line import encode_line

FILE = "train.jsonl"
FIELDS = {
    "messages": "the conversation as the agent's model knew it, in OpenAI's form; assistant messages have `weight` "
    "(OpenAI's loss mask), 1 where a model is to learn the turn",
    "tools": "the tools that the agent was offered, as JSON schemas (the domain's, where an older record does not say)",
    "authors": "who wrote each message: system, user, tool, agent, expert-N, or benchmark (greeting, task's history)",
    "loss_mask": "1 or 0 for each message; 0 also for turns that were cut, filtered, degenerate or left with markup",
    "token_sequences": "where the run had agent.return_token_ids: `ids` as the agent's model read and sampled them, "
    "each with `loss_mask` and `logprobs`; calls share a sequence as long as each prompt begins with all before it",
    "token_breaks": "calls (by their place in the record) whose prompt does not begin with what was read and sampled "
    "before: `same` ids of `of`",
    "run, domain, task_id, trial, seed": "which simulation it is",
    "reward, termination_reason": "how it ended",
}


class Sft:
    """A folder with `train.jsonl` and `README.md`."""

    folder = True

    def add_arguments(self, parser: Arguments) -> None:
        add_training_arguments(parser)

    def file_name(self, options: argparse.Namespace) -> str:
        return "sft"

    def write(self, export: Export) -> None:
        selection = Selection(export.options.all)
        turns_learnt = messages = with_tokens = unbroken = 0
        with replaced(export.path / FILE) as file:
            for run in export.runs:
                encoded = Encoded(run)
                for record in selection.records(run):
                    turns = agent_turns(record["messages"], run.prompt(record), export.options.thinking)
                    mask = [int(turn.is_trained(export.options.train_on)) for turn in turns]
                    if not any(mask):
                        selection.left["without a turn to learn"] += 1
                        continue
                    selection.take(run, record)
                    messages += len(turns)
                    turns_learnt += sum(mask)
                    about = {**identity(run, record), "authors": [turn.author for turn in turns], "loss_mask": mask}
                    if (tokens := tokens_of(record, export.options.train_on)) is not None:
                        about |= tokens
                        with_tokens += 1
                        unbroken += not tokens["token_breaks"]
                    file.write(encoded.line(about, {"messages": (turns, mask)}, record))
        selection.refuse_nothing()
        counts = {
            "messages": messages,
            "messages to learn": turns_learnt,
            "conversations with token ids": with_tokens,
            "of them each prompt begins with all that was read and sampled before": unbroken,
        }
        text = card(export, selection, "Conversations of τ²-bench for fine-tuning", FIELDS, counts)
        write_text(export.path / CARD, text)
        export.notes += selection.notes()
        if with_tokens:
            export.notes.append(
                f"{with_tokens} with token ids; in {unbroken} each prompt begins with all that was sampled before, "
                "for the others token_breaks says where not"
            )
        total = selection.taken.total()
        export.notes.append(
            f"{total} conversations, {selection.passed} of them with reward 1; {turns_learnt} of {messages} messages "
            f"to learn" + ("" if selection.passed == total else "; --min-reward 1 takes only those that succeeded")
        )


def identity(run: Run, record: Json) -> Json:
    """Which simulation a line is of."""
    names = ("domain", "task_id", "trial", "seed", "reward", "termination_reason")
    return {"run": run.name, **{name: record[name] for name in names}, "model": run.model("agent")}


class Encoded:
    """Puts lines together; system prompts and tools, most of every line, are encoded once."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._system = cache(_dumps)
        self._tools: dict[tuple[str, str], bytes] = {}

    def line(self, about: Json, conversations: dict[str, tuple[list[Turn], list[int]]], record: Json) -> bytes:
        """A JSON line.

        Args:
            about: what stands before the conversations.
            conversations: key to turns and their loss mask.
        """
        pieces = [encode_line(about).rstrip()[:-1]]
        for name, (turns, mask) in conversations.items():
            messages = b",".join([self._message(turn, weight) for turn, weight in zip(turns, mask, strict=True)])
            pieces.append(b',"%b":[%b]' % (name.encode(), messages))
        pieces.append(b',"tools":%b}\n' % self._encoded_tools(record))
        return b"".join(pieces)

    def _message(self, turn: Turn, weight: int) -> bytes:
        if turn.author == "system":
            return self._system(turn.message["content"])
        message = turn.message
        if message["role"] == "assistant":
            message = {**message, "weight": weight}
        return encode_line(message).rstrip()

    def _encoded_tools(self, record: Json) -> bytes:
        key = record["domain"], (record["tools"] or {}).get("agent", "")
        found = self._tools.get(key)
        if found is None:
            found = self._tools[key] = orjson.dumps(self._run.tools(record))
        return found


def _dumps(content: str) -> bytes:
    return encode_line({"role": "system", "content": content}).rstrip()
