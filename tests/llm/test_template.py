"""A reply begins and ends where its turn does, whatever a server lets the model write around that."""

from __future__ import annotations

import time

import pytest

from tau2_fleet.llm.conditions import Condition
from tau2_fleet.llm.examine import Examined, examine
from tau2_fleet.llm.provider import ProviderAnswer
from tau2_fleet.llm.types import Reply, ToolSet
from tests.llm.dialects import OPENAI
from tests.llm.test_conditions import THOUGHT, TOOLS, ask, completion


def read(text: str, tools: ToolSet | None = None) -> Examined:
    return examine(ProviderAnswer(text=text), tools)


@pytest.mark.parametrize(
    "text",
    [
        "Hello<|im_end|>\n<|im_start|>user\n###STOP### bye",
        "Hello<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n###STOP###",
        "Hello<end_of_turn>\n<start_of_turn>user\n###STOP###",
        "Hello<|endoftext|>Human: ###STOP###",
        "<|im_start|>assistant\nHello<|im_end|>\n<|im_start|>user\n###STOP###",
        "<|start_header_id|>assistant<|end_header_id|>\n\nHello<|eot_id|>###STOP###",
        "Hello<｜end▁of▁sentence｜><｜User｜>###STOP###",
        "Hello</s>[INST] ###STOP### [/INST]",
        "<|assistant|>\nHello<|user|>\n###STOP###",
        "Hello\nuser\n###STOP###",
        "to=user<|message|>Hello<|eot|>###STOP###",
    ],
)
def test_what_stands_behind_the_end_of_a_turn_is_not_said(text: str) -> None:
    seen = read(text)
    assert seen.text == "Hello"
    assert "###STOP###" in (seen.thinking or "")
    assert seen.conditions == [Condition.thinking_left]


@pytest.mark.parametrize(
    "text", ["Hello<|im_end|>", "<|im_start|>assistant\nHello", "Hello</s>", "<|begin_of_text|>Hello"]
)
def test_tokens_around_a_turn_are_taken_off_and_counted(text: str) -> None:
    seen = read(text)
    assert (seen.text, seen.thinking, seen.conditions) == ("Hello", None, [Condition.thinking_left])
    assert seen.details[Condition.thinking_left].startswith("beside its turn: <")


@pytest.mark.parametrize("text", ["<|im_start|>user\nThat is all. ###STOP###", "[INST] ###STOP### [/INST] Hello"])
def test_the_other_side_s_turn_is_nothing_said(text: str) -> None:
    seen = read(text)
    assert (seen.text, seen.conditions) == ("", [Condition.thinking_left, Condition.only_thinking])


@pytest.mark.parametrize(
    "text", ["It was <s>5</s> 4 dollars.", "a < b", "see [1]", "for the user\nand you", "Sir/user\nname"]
)
def test_ordinary_text_is_left_as_it_is(text: str) -> None:
    assert (read(text).text, read(text).conditions) == (text, [])


def test_a_call_that_stands_behind_the_end_of_a_turn_is_counted_too() -> None:
    seen = read("Hello<|im_end|>\n<|im_start|>assistant\n<tool_call>{}", TOOLS)
    assert (seen.text, set(seen.conditions)) == ("Hello", {Condition.thinking_left, Condition.markup_left})


@pytest.mark.parametrize(
    "text",
    [
        f"<ifm|think_fast>{THOUGHT}</ifm|think_fast>Hello",
        f"<think:opensource>{THOUGHT}</think:opensource>Hello",
        f"<|open|> think <|sep|>{THOUGHT}<|close|> think <|sep|><|open|>response<|sep|>Hello<|close|>response<|sep|>",
        f"<|start|>assistant to=self<|message|>{THOUGHT}<|eom|><|start|>assistant to=user<|message|>Hello<|eot|>",
        f"<|message_model|><|content_thinking|>{THOUGHT}<|end_message|><|message_model|><|content_text|>Hello<|end_message|>",
        f"analysis<|message|>{THOUGHT}<|end|>final<|message|>Hello",
        f"<think>{THOUGHT}</think><assistant>Hello</assistant>",
        f"<REASONING>{THOUGHT}</REASONING><SOLUTION>Hello</SOLUTION>",
        f"<|reasoning|>{THOUGHT}<|response|>Hello",
        f"<reasoning_start>{THOUGHT}<reasoning_end>Hello",
        f"<SPECIAL_69>{THOUGHT}<SPECIAL_70>Hello",
        f"[THOUGHT]{THOUGHT}[/THOUGHT]Hello",
        f"<思考>{THOUGHT}</思考>Hello",
        f"【思考】{THOUGHT}【/思考】Hello",
        f"<|cot_start|>{THOUGHT}<|cot_end|>Hello",
    ],
)
def test_thinking_of_younger_formats_is_cut_off_and_kept(text: str) -> None:
    seen = read(text)
    assert seen.text == "Hello"
    assert "###STOP###" in (seen.thinking or "")
    assert seen.conditions == [Condition.thinking_left]


@pytest.mark.parametrize(
    "text",
    [
        "<unk>",
        "<s>",
        "\x00",
        "\u00ad",
        "\ufffd",
        "[PAD]",
        "<0x0A>",
        "<turn|>",
        "[|endofturn|]",
        "</assistant>",
        "<|im_end|>",
    ],
)
def test_what_says_nothing_is_asked_for_again(text: str) -> None:
    reply, _ = ask(OPENAI, completion({"content": text}))
    assert isinstance(reply, Reply)
    assert reply.empty
    assert reply.stats.conditions == [Condition.empty]


@pytest.mark.parametrize(
    "piece",
    ["<s>", "<|reasoning|>", "<|im_end|>", "<|content_thinking|>", " \t", "get_order ", "get_order{", "&lt;", "<"],
)
def test_a_long_text_of_one_mark_is_looked_at_in_time(piece: str) -> None:
    began = time.process_time()
    for before in ("", '{"x": '):
        read(before + piece * (40_000 // len(piece)), TOOLS)
    assert time.process_time() - began < 2
