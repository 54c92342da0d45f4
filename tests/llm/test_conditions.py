"""What servers make of replies, over real sockets and for every provider: each condition is found, and dealt with."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tau2_fleet.llm.conditions import Condition
from tau2_fleet.llm.model import Model
from tau2_fleet.llm.retry import RetryPolicy
from tau2_fleet.llm.types import ChatMessage, Reply, ToolCallText, ToolSet
from tests.llm.dialects import ALL, CLAUDE, LITELLM, OPENAI, VLLM, Dialect
from tests.llm.serving import Answer, Hand, Server, json_answer
from tests.llm.test_contract import HISTORY, failing, request, talk

NAMES = ("find_user", "get_order", "reset_apn")
TOOLS = ToolSet.of([{"type": "function", "function": {"name": name, "parameters": {}}} for name in NAMES])
CALL = '{"name": "get_order", "arguments": {"order_id": "#W1"}}'
THOUGHT = "They may say ###STOP### now."

every_provider = pytest.mark.parametrize("dialect", ALL, ids=lambda dialect: dialect.name)
chat_providers = pytest.mark.parametrize("dialect", [OPENAI, VLLM, LITELLM], ids=lambda dialect: dialect.name)


def completion(message: dict[str, Any], reason: Any = "stop", choice: Any = (), **top: Any) -> Answer:
    """A chat completion with this message, and more keys in its choice and at its top."""
    whole = {"role": "assistant", "content": None, **message}
    usage = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
    choices = [{"index": 0, "message": whole, "finish_reason": reason, **dict(choice)}]
    body = {"id": "x", "object": "chat.completion", "created": 1, "model": "tiny", "choices": choices, "usage": usage}
    return json_answer({key: value for key, value in (body | top).items() if value != "gone"})


def called(name: str = "get_order", arguments: Any = '{"order_id":"#W1"}', call_id: Any = "c1") -> dict[str, Any]:
    function = {"name": name} if arguments == "gone" else {"name": name, "arguments": arguments}
    return {"tool_calls": [{"id": call_id, "type": "function", "function": function}]}


def ask(dialect: Dialect, *script: Answer) -> tuple[Reply, int]:
    """The reply to a request with tools, and how often the server was asked for it."""
    reply, server, _ = talk(dialect, *script, asked=request(tools=TOOLS))
    return reply, len(server.seen)


@chat_providers
@pytest.mark.parametrize(
    ("spoilt", "condition"),
    [
        (completion({"content": "Your or"}, "abort"), "aborted"),
        (completion({"content": "Your or"}, "cancelled"), "aborted"),
        (completion({"content": "Your or"}, "engine_dead"), "aborted"),
        (completion({"content": "Your or"}, "time_limit"), "aborted"),
        (completion({"content": "Your or"}, "unknown_error"), "error_inside"),
        (completion({"content": "Your or"}, "insufficient_system_resource"), "aborted"),
        (completion({"content": "Your"}, "error", {"error": {"code": 502, "message": "upstream"}}), "error_inside"),
        (completion({"content": "Your"}, "error"), "error_inside"),
        (completion({"content": "Your"}, "network_error"), "error_inside"),
        (completion({}, "stop", {"error": {"message": "gone", "code": 400}}), "error_inside"),
        (completion({"content": "Your"}, error={"message": "gone", "code": 503}), "error_inside"),
        (completion({}, "malformed_function_call"), "error_inside"),
        (completion({"content": "Your or"}, "function_call_filter: MALFORMED_FUNCTION_CALL"), "error_inside"),
        (completion({"content": "Your or"}, "MISSING_THOUGHT_SIGNATURE"), "error_inside"),
        (completion({"content": "Your or"}, "rate_limit"), "error_inside"),
        (completion({"content": "Your or"}, "in_progress"), "aborted"),
        (completion({"content": "Your or"}, "load"), "aborted"),
        (completion({"content": "Your or"}, "connectionReset"), "aborted"),
        (completion({"content": "Your or", "error": {"code": 502, "message": "upstream"}}), "error_inside"),
        (completion({"content": "Your or"}, "KV_TRANSFER_PREEMPTION"), "aborted"),
        (completion({"content": "Your or"}, "bad_gateway"), "error_inside"),
        (completion({"content": "<!DOCTYPE html>\n<title>502 Bad Gateway</title>"}), "error_inside"),
        (completion({"content": '{"error": {"message": "Rate limit", "code": 429}}'}), "error_inside"),
        (completion({"content": "upstream connect error or disconnect/reset before headers"}), "error_inside"),
        (completion({"content": "503 Service Temporarily Unavailable"}), "error_inside"),
        (completion({"content": "Your or"}, base_resp={"status_code": 1000, "status_msg": "unknown"}), "error_inside"),
    ],
)
def test_what_was_broken_off_is_asked_for_again_and_never_said(
    dialect: Dialect, spoilt: Answer, condition: str
) -> None:
    reply, asked = ask(dialect, spoilt, dialect.reply("Whole"))
    assert (reply.text, asked, reply.stats.attempts) == ("Whole", 2, 2)
    assert reply.stats.conditions == [condition]
    assert reply.stats.details


@pytest.mark.parametrize(
    "body",
    [
        {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
        {"type": "message", "content": [{"type": "text", "text": "Hal"}], "stop_reason": "error"},
        {
            "type": "message",
            "content": [{"type": "text", "text": "Hal"}],
            "stop_reason": "end_turn",
            "status": "failed",
        },
    ],
)
def test_an_error_in_a_claude_message_is_asked_for_again(body: dict[str, Any]) -> None:
    reply, asked = ask(CLAUDE, json_answer(body), CLAUDE.reply("Whole"))
    assert (reply.text, asked, reply.stats.conditions) == ("Whole", 2, ["error_inside"])


@pytest.mark.parametrize("dialect", [OPENAI, VLLM], ids=lambda dialect: dialect.name)
@pytest.mark.parametrize(
    "body",
    [
        [{"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}}],
        {"object": "error", "message": "oops", "type": "InternalServerError", "code": 500},
        {"detail": "Internal error"},
        {"choices": None, "base_resp": {"status_code": 1002, "status_msg": "rate limit"}},
    ],
)
def test_an_error_in_place_of_choices_is_asked_for_again_and_counted(dialect: Dialect, body: Any) -> None:
    reply, asked = ask(dialect, json_answer(body), dialect.reply("Whole"))
    assert (reply.text, asked, reply.stats.conditions) == ("Whole", 2, ["error_inside"])


@pytest.mark.parametrize(
    ("around", "condition"),
    [
        ({"status": "failed"}, "error_inside"),
        ({"status": "incomplete"}, "error_inside"),
        ({"code": 503, "msg": "busy"}, "error_inside"),
        ({"success": False, "msg": "quota"}, "error_inside"),
        ({"errors": [{"message": "gone"}]}, "error_inside"),
        ({"finish_reason": "error"}, "error_inside"),
    ],
)
def test_an_error_that_a_gateway_puts_around_choices_is_asked_for_again(around: dict[str, Any], condition: str) -> None:
    reply, asked = ask(OPENAI, completion({"content": "Hal"}, **around), OPENAI.reply("Whole"))
    assert (reply.text, asked) == ("Whole", 2)
    assert reply.stats.conditions == [condition]


@pytest.mark.parametrize(
    ("text", "more"),
    [
        ('{"error": "User not found"}', {}),
        ("Service unavailable.", {}),
        ("Internal server errors are no reason to cancel, I am afraid.", {}),
        ("Hello", {"code": 0, "status": "success", "success": True, "errors": []}),
        ("Hello", {"status": 200, "code": "ok", "status_code": None}),
    ],
)
def test_what_a_model_says_of_errors_and_words_of_success_are_calm(text: str, more: dict[str, Any]) -> None:
    reply, asked = ask(OPENAI, completion({"content": text}, **more))
    assert (reply.text, asked) == (text, 1)


@pytest.mark.parametrize("dialect", [OPENAI, VLLM, LITELLM, CLAUDE], ids=lambda dialect: dialect.name)
def test_a_server_that_breaks_every_answer_off_is_an_infrastructure_error_that_says_so(dialect: Dialect) -> None:
    error, _, _ = failing(dialect, completion({"content": "Ha"}, "abort", stop_reason="abort", type="message",
                                              content=[{"type": "text", "text": "Ha"}]),
                          retry=RetryPolicy(attempts=2))  # fmt: skip
    assert error.stats is not None
    assert error.stats.conditions == ["aborted", "aborted"]
    assert "abort" in str(error)


@chat_providers
@pytest.mark.parametrize("arguments", ["", "  \n", "null", None, "gone", '"null"', '""', "[]"])
def test_no_arguments_are_an_empty_object(dialect: Dialect, arguments: Any) -> None:
    reply, _ = ask(dialect, completion(called("reset_apn", arguments), "tool_calls"))
    assert [call.arguments for call in reply.tool_calls] == ["{}"]
    assert reply.stats.conditions == [Condition.arguments_empty]


@chat_providers
def test_arguments_encoded_twice_are_taken_apart(dialect: Dialect) -> None:
    reply, _ = ask(dialect, completion(called(arguments='"{\\"order_id\\": \\"#W1\\"}"'), "tool_calls"))
    assert reply.tool_calls[0].arguments == '{"order_id": "#W1"}'
    assert reply.stats.conditions == [Condition.arguments_double]


@chat_providers
@pytest.mark.parametrize(
    "around",
    ["%s<|call|>", "%s\n</tool_call><|im_end|>", "\ufeff%s", "<|constrain|>json<|message|>%s<|call|>", "json%s", "{}%s",
     "<tool_call>%s", "%s</function>", "%s[/TOOL_CALLS]", '{"name":"get_order","arguments":%s}',
     "```json\n%s\n```", "%s<end_of_turn>",
     '{"type":"function","function":{"name":"get_order","arguments":%s}}',
     '{"function":"get_order","arguments":%s}'],
)  # fmt: skip
def test_what_a_parser_left_around_arguments_is_taken_off(dialect: Dialect, around: str) -> None:
    reply, _ = ask(dialect, completion(called(arguments=around % '{"order_id":"#W1"}'), "tool_calls"))
    assert reply.tool_calls[0].arguments == '{"order_id":"#W1"}'
    assert reply.stats.conditions == [Condition.arguments_double]


@pytest.mark.parametrize(
    "arguments",
    [
        '{"order_id":"#W1"}{"order_id":"#W1"}',
        r"{\"order_id\": \"#W1\"}",
        json.dumps(json.dumps(json.dumps({"order_id": "#W1"}))),
        '{"order_id":"#W1"}\n\n{"order_id":"#W1"}',
        '""{"order_id":"#W1"}',
        '{"order_id":"#W1"}null',
        '{"order_id":"#W1"}\x00',
        "{&quot;order_id&quot;:&quot;#W1&quot;}",
    ],
)
def test_arguments_that_came_twice_or_lost_their_quotes_are_put_right(arguments: str) -> None:
    reply, _ = ask(OPENAI, completion(called(arguments=arguments), "tool_calls"))
    assert reply.tool_calls[0].arguments.replace(" ", "") == '{"order_id":"#W1"}'
    assert reply.stats.conditions == [Condition.arguments_double]


@pytest.mark.parametrize("arguments", ["", "{}", None])
def test_arguments_that_a_parser_took_for_the_end_of_the_name_are_put_right(arguments: str | None) -> None:
    reply, _ = ask(OPENAI, completion(called('get_order{"order_id":"#W1"}', arguments), "tool_calls"))
    assert [(call.name, call.arguments) for call in reply.tool_calls] == [("get_order", '{"order_id":"#W1"}')]
    assert reply.stats.conditions == [Condition.tool_name_marked]


@pytest.mark.parametrize("text", ["<|im_end|>", "</s>", "\u200b\u200b\n", "\n<|eot_id|>\n", "<end_of_turn>"])
def test_tokens_that_end_a_turn_and_blanks_without_width_are_no_text(text: str) -> None:
    reply, _ = ask(OPENAI, completion({"content": text}))
    assert reply.stats.conditions == [Condition.empty]


@pytest.mark.parametrize("mark", ["<|im_end|>", "</parameter>", "</arg_value>", "<｜tool▁call▁end｜>"])
def test_marks_that_a_parser_left_in_a_value_are_counted(mark: str) -> None:
    reply, _ = ask(OPENAI, completion(called(arguments=f'{{"order_id":"#W1{mark}"}}'), "tool_calls"))
    assert mark in reply.tool_calls[0].arguments
    assert reply.stats.conditions == [Condition.markup_left]


@chat_providers
@pytest.mark.parametrize("reason", ["tool_calls", "function_call", "tool_use"])
def test_a_promised_call_that_a_gateway_lost_is_counted(dialect: Dialect, reason: str) -> None:
    reply, _ = ask(dialect, completion({"content": "One moment"}, reason))
    assert (reply.text, reply.stats.conditions) == ("One moment", [Condition.markup_left])


ORDER: dict[str, Any] = {"name": "get_order", "arguments": '{"order_id":"#W1"}'}
CALLED = called()


@pytest.mark.parametrize(
    "answer",
    [
        completion({"function_call": ORDER}, "function_call"),
        completion({"tool_calls": [{"id": "c1", **ORDER}]}),
        completion({"tool_calls": [{"function": {"name": "get_order", "parameters": {"order_id": "#W1"}}}]}),
        completion({"content": [{"type": "tool_use", "name": "get_order", "input": {"order_id": "#W1"}}]}, "tool_use"),
        completion({"content": [{"toolUse": {"toolUseId": "t1", "name": "get_order", "input": {"order_id": "#W1"}}}]}),
        completion({"content": [{"functionCall": {"name": "get_order", "args": {"order_id": "#W1"}}}]}),
        completion({"content": [{"type": "function_call", "call_id": "c1", **ORDER}]}),
        completion({"tool_calls": [{"function": ORDER | {"arguments": "", "parameters": {"order_id": "#W1"}}}]}),
        completion({}, choices=[
            {"index": 1, "message": {"content": "Other"}, "finish_reason": "stop"},
            {"index": 0, "message": CALLED, "finish_reason": "tool_calls"},
        ]),
        completion({}, choices=[
            {"message": {"content": ""}, "finish_reason": "tool_calls"},
            {"message": CALLED, "finish_reason": "tool_calls"},
        ]),
    ],
    ids=["function_call", "flat", "parameters", "block", "bedrock",
         "gemini", "part", "empty arguments", "the first by number", "a choice of its own"],
)  # fmt: skip
def test_a_call_is_read_wherever_a_gateway_puts_it(answer: Answer) -> None:
    reply, asked = ask(OPENAI, answer)
    assert [(call.name, call.arguments) for call in reply.tool_calls] == [("get_order", '{"order_id":"#W1"}')]
    assert (asked, reply.stats.conditions) == (1, [])


@chat_providers
@pytest.mark.parametrize("arguments", ['{"a":', "[1]", "order #W1", "7", '"text"', '{"a": NaN}', '{"a": 1}{"a": 2}'])
def test_other_arguments_stay_as_they_are_and_are_counted(dialect: Dialect, arguments: str) -> None:
    reply, _ = ask(dialect, completion(called(arguments=arguments), "tool_calls"))
    assert reply.tool_calls[0].arguments == arguments
    assert reply.stats.conditions == [Condition.arguments_malformed]


@pytest.mark.parametrize(
    ("content", "text", "calls", "conditions"),
    [
        ("Hello", "Hello", [], []),
        ([{"type": "text", "text": None}, {"type": "text", "text": "Hello"}], "Hello", [], []),
        ([{"type": "tool_use", "id": "t1", "name": "reset_apn"}], None, [("reset_apn", "{}")], ["arguments_empty"]),
        ([{"type": "tool_use", "id": "t1", "name": "get_order", "input": '{"order_id":"#W1"}'}], None,
         [("get_order", '{"order_id":"#W1"}')], []),
    ],
)  # fmt: skip
def test_other_servers_of_claude_s_protocol_are_read_all_the_same(
    content: Any, text: str | None, calls: list[tuple[str, str]], conditions: list[str]
) -> None:
    body = {"type": "message", "content": content, "stop_reason": "end_turn",
            "usage": {"input_tokens": 5, "output_tokens": 2}}  # fmt: skip
    reply, asked = ask(CLAUDE, json_answer(body))
    assert (reply.text, [(call.name, call.arguments) for call in reply.tool_calls], asked) == (text, calls, 1)
    assert reply.stats.conditions == conditions


@every_provider
@pytest.mark.parametrize(
    ("name", "read", "conditions"),
    [
        ("get_order<|channel|>commentary", "get_order", ["tool_name_marked"]),
        ("functions.get_order", "get_order", ["tool_name_marked"]),
        (" get_order\n", "get_order", ["tool_name_marked"]),
        ("get_order<|constrain|>json", "get_order", ["tool_name_marked"]),
        ("get_ordercommentary", "get_order", ["tool_name_marked"]),
        ("functions.get_order:0", "get_order", ["tool_name_marked"]),
        ("get_orderget_order", "get_order", ["tool_name_marked"]),
        ("<｜tool▁sep｜>get_order", "get_order", ["tool_name_marked"]),
        ("functions_get_order_0", "get_order", ["tool_name_marked"]),
        ("default_api:get_order", "get_order", ["tool_name_marked"]),
        ("get_order<|endoftext|>", "get_order", ["tool_name_marked"]),
        ("get_order<0x0A>", "get_order", ["tool_name_marked"]),
        ("get_order&lt;|channel|&gt;commentary", "get_order", ["tool_name_marked"]),
        ("get_orders", "get_orders", ["tool_unknown"]),
        ("get_order", "get_order", []),
    ],
)
def test_marks_around_a_name_are_taken_off(dialect: Dialect, name: str, read: str, conditions: list[str]) -> None:
    reply, _ = ask(dialect, dialect.reply(None, [ToolCallText("c1", name, '{"order_id":"#W1"}')]))
    assert [call.name for call in reply.tool_calls] == [read]
    assert reply.stats.conditions == conditions


@every_provider
@pytest.mark.parametrize(
    "text",
    [
        f"<think>{THOUGHT}</think>\n\nHello",
        f"{THOUGHT}</think>Hello",
        f"<think>A</think>\n{THOUGHT}\n</think>\n\nHello",
        f"{THOUGHT}</think>{THOUGHT}</think>Hello",
        f"<thought>{THOUGHT}</thought>Hello",
        f"<thinking>{THOUGHT}</thinking>Hello",
        f"<seed:think>{THOUGHT}</seed:think>Hello",
        f"[THINK]{THOUGHT}[/THINK]Hello",
        f"analysis{THOUGHT}assistantfinalHello",
        f"analysis{THOUGHT}assistantcommentaryI will look.assistantfinalHello",
        f"<|channel|>analysis<|message|>{THOUGHT}<|end|><|start|>assistant<|channel|>final<|message|>Hello<|return|>",
        f"◁think▷{THOUGHT}◁/think▷Hello",
        f"<|START_THINKING|>{THOUGHT}<|END_THINKING|><|START_RESPONSE|>Hello<|END_RESPONSE|>",
        f"<|begin_of_thought|>{THOUGHT}<|end_of_thought|><|begin_of_solution|>Hello<|end_of_solution|>",
        f"<think>{THOUGHT}</think><answer>Hello</answer>",
        f"<|inner_prefix|>{THOUGHT}<|inner_suffix|>Hello",
        f"<reflection>{THOUGHT}</reflection>Hello",
        f"<inner_monologue>{THOUGHT}</inner_monologue>Hello",
        f"<|begin_of_thinking|>{THOUGHT}<|end_of_thinking|>Hello",
        f"<|reasoning_start|>{THOUGHT}<|reasoning_end|>Hello",
        f"[REASONING]{THOUGHT}[/REASONING]Hello",
        f"<antThinking>{THOUGHT}</antThinking><output>Hello</output>",
        f"<think>{THOUGHT}<think/>Hello",
        f"<think>{THOUGHT}</think><|begin_of_box|>Hello<|end_of_box|>",
        f'<details type="reasoning" done="true"><summary>Thought for 3 s</summary>{THOUGHT}</details>Hello',
        f"<|channel|>analysis {THOUGHT}<|end|><|start|>assistant<|channel|>final Hello",
        f"```thinking\n{THOUGHT}\n```\nHello",
        f"<|begin|>assistant<|think|>{THOUGHT}<|end|><|begin|>assistant<|content|>Hello",
    ],
)
def test_thinking_in_the_text_is_cut_off_and_kept_with_any_stop_token_in_it(dialect: Dialect, text: str) -> None:
    reply, _ = ask(dialect, dialect.reply(text))
    assert reply.text == "Hello"
    assert "###STOP###" in (reply.thinking or "")
    assert reply.stats.conditions == [Condition.thinking_left]


FORMS = {
    "hermes": f"<tool_call>\n{CALL}\n</tool_call>",
    "qwen xml": "<function=get_order>\n<parameter=order_id>\n#W1\n</parameter>\n</function>",
    "llama": '<|python_tag|>{"name": "get_order", "parameters": {}}',
    "bare JSON": CALL,
    "fenced JSON": f"Let me see.\n```json\n{CALL}\n```",
    "pythonic": "[get_order(order_id='#W1')]",
    "python": "get_order(order_id='#W1')",
    "mistral": f"[TOOL_CALLS][{CALL}]",
    "deepseek": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_order",
    "DSML": '<｜DSML｜function_calls>\n<｜DSML｜invoke name="get_order">',
    "harmony": "<|start|>assistant<|channel|>commentary to=functions.get_order <|constrain|>json<|message|>{}<|call|>",
    "bare harmony": 'assistantcommentary to=functions.get_order json{"order_id": "#W1"}',
    "glm": "<tool_call>get_order\n<arg_key>order_id</arg_key>\n<arg_value>#W1</arg_value>",
    "kimi": "<|tool_calls_section_begin|><|tool_call_begin|>functions.get_order:0<|tool_call_argument_begin|>{}",
    "minimax": '<minimax:tool_call>\n<invoke name="get_order">',
    "functionary": '>>>get_order\n{"order_id": "#W1"}',
    "name first": 'get_order\n{"order_id": "#W1"}',
    "react": 'Action: get_order\nAction Input: {"order_id": "#W1"}',
    "granite": f"<|tool_call|>[{CALL}]",
    "openai object": '{"type": "function", "function": {"name": "get_order", "parameters": {}}}',
    "phi": f"functools[{CALL}]",
    "xlam": f"[{CALL}]",
    "call in a sentence": "I will call get_order(order_id='#W1') now.",
    "by place": "get_order('#W1')",
    "qwen-agent": '✿FUNCTION✿: get_order\n✿ARGS✿: {"order_id": "#W1"}',
    "grok": '<xai:function_call name="get_order"><parameter name="order_id">#W1</parameter></xai:function_call>',
    "escaped": f"&lt;tool_call&gt;{CALL}&lt;/tool_call&gt;",
    "capitals": f"<TOOL_CALL>{CALL}</TOOL_CALL>",
    "yaml": "tool: get_order\narguments:\n  order_id: 1",
    "keys without quotes": '{name: "get_order", arguments: {}}',
    "told": "[Calling tool: get_order with {}]",
    "name before JSON": 'Calling `get_order` with:\n```json\n{"order_id": "#W1"}\n```',
}


@chat_providers
@pytest.mark.parametrize("form", FORMS)
def test_a_call_that_stayed_text_is_found_in_text_and_in_thinking(dialect: Dialect, form: str) -> None:
    reply, _ = ask(dialect, completion({"content": FORMS[form]}))
    assert Condition.markup_left in reply.stats.conditions
    assert reply.text
    assert not reply.tool_calls
    reply, _ = ask(dialect, completion({"reasoning_content": f"I look it up. {FORMS[form]}"}))
    assert {Condition.markup_left, Condition.only_thinking} <= set(reply.stats.conditions) or form in _BY_LINE


_BY_LINE = frozenset({"name first", "react", "python", "yaml"})
"""Told from talk by standing at the beginning of a line, which they do not do there."""


@every_provider
@pytest.mark.parametrize(
    "text",
    [
        "I can call get_order for you.",
        "Done:\nget_order (the tool) found 5.",
        "Your order [1] costs <b>5</b> (five).",
        'The name is "get_order".',
        "a < b > c",
    ],
)
def test_ordinary_talk_is_calm(dialect: Dialect, text: str) -> None:
    reply, _ = ask(dialect, dialect.reply(text))
    assert (reply.text, reply.stats.conditions) == (text, [])


@chat_providers
@pytest.mark.parametrize(
    ("key", "value"),
    [("reasoning_content", "Hm"), ("reasoning", "Hm"), ("reasoning", {"content": "Hm"}), ("thinking", "Hm"),
     ("reasoning_details", [{"type": "reasoning.text", "text": "Hm"}]),
     ("thinking_blocks", [{"type": "thinking", "thinking": "Hm", "signature": "s"}])],
)  # fmt: skip
def test_only_thinking_is_told_from_nothing(dialect: Dialect, key: str, value: Any) -> None:
    reply, _ = ask(dialect, completion({key: value}))
    assert (reply.empty, reply.stats.conditions, reply.thinking) == (True, [Condition.only_thinking], "Hm")
    reply, _ = ask(dialect, completion({"content": ""}))
    assert (reply.empty, reply.stats.conditions) == (True, [Condition.empty])


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}, {"type": "text", "text": "Hello"}],
        [{"type": "reasoning", "text": "Hm"}, {"type": "output_text", "text": "Hello"}],
        {"type": "text", "text": "Hello"},
        [{"type": "reasoning_text", "text": "Hm"}, {"type": "text", "text": {"value": "Hello"}}],
        [{"type": "text", "text": "Hm", "thought": True}, {"type": "text", "text": None}, "Hello"],
    ],
)
def test_thinking_that_comes_in_parts_is_kept_apart(content: Any) -> None:
    thoughts = {"thoughts": ["Hm"]} if isinstance(content, dict) else {}
    reply, _ = ask(OPENAI, completion({"content": content, **thoughts}))
    assert (reply.text, reply.thinking) == ("Hello", "Hm")


@pytest.mark.parametrize(
    "reason",
    ["length", "MAX_TOKENS", "maxTokens", "model_length", "token_limit_reached", "context", {"type": "length"}],
)
def test_a_text_cut_at_its_limit_is_kept_and_counted(reason: Any) -> None:
    reply, asked = ask(OPENAI, completion({"content": "Hello, I nee"}, reason))
    assert (reply.text, asked, reply.stats.conditions) == ("Hello, I nee", 1, [Condition.cut])


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (completion({"content": "Hel"}, "content_filter"), "Hel"),
        (completion({"content": "Hel"}, "SAFETY"), "Hel"),
        (completion({"content": "Hel"}, "content_policy_violation"), "Hel"),
        (completion({"content": "Hel"}, "content_filter: RECITATION"), "Hel"),
        (completion({"content": "Hel"}, "stop", {"content_filter_results": {"hate": {"filtered": True}}}), "Hel"),
        (completion({"content": "Hel"}, output_sensitive=True, base_resp={"status_code": 1027}), "Hel"),
        (completion({"refusal": "I cannot."}), "I cannot."),
        (completion({"content": [{"type": "refusal", "refusal": "I cannot."}]}), "I cannot."),
    ],
)
def test_what_a_filter_left_is_kept_and_counted(answer: Answer, text: str) -> None:
    reply, _ = ask(OPENAI, answer)
    assert (reply.text, reply.stats.conditions) == (text, [Condition.filtered])


@pytest.mark.parametrize(
    "reason",
    [None, "", "eos", "stop_token", "STOP", "FINISH_REASON_UNSPECIFIED", "COMPLETE", "eot_id", {"type": "stop"}, 5],
)
def test_other_words_for_a_whole_answer_are_calm(reason: Any) -> None:
    reply, asked = ask(OPENAI, completion({"content": "Hello"}, reason))
    assert (reply.text, asked, reply.stats.conditions) == ("Hello", 1, [])


def test_claude_s_reasons_have_the_same_names() -> None:
    for reason, condition in (("max_tokens", "cut"), ("refusal", "filtered"), ("end_turn", None)):
        body = {"content": [{"type": "text", "text": "Hi"}], "stop_reason": reason,
                "usage": {"input_tokens": 5, "output_tokens": 2}}  # fmt: skip
        reply, _ = ask(CLAUDE, json_answer(body))
        assert reply.stats.conditions == ([] if condition is None else [condition])


SORRY = "I apologize for the inconvenience that this has caused you and I will look into the matter at once. "
LOOP = SORRY * 3 + "Please bear with me until then, if you can. "


@every_provider
@pytest.mark.parametrize(
    "text", ["!" * 400, "ha " * 100, "I am sorry, I cannot. " * 40, "ok " + "\\n-" * 300, LOOP * 12]
)
def test_one_cycle_over_and_over_is_degenerate(dialect: Dialect, text: str) -> None:
    reply, _ = ask(dialect, dialect.reply(text))
    assert (reply.text, reply.stats.conditions) == (text, [Condition.degenerate])


@chat_providers
@pytest.mark.parametrize("usage", ["gone", None, {}, {"prompt_tokens": -1, "completion_tokens": "7"}])
def test_missing_token_counts_are_estimated_and_marked(dialect: Dialect, usage: Any) -> None:
    reply, _ = ask(dialect, completion({"content": "Hello there"}, usage=usage))
    sent = sum(len(message.encoded) for message in HISTORY)
    assert reply.stats.usage.input_tokens >= sent // 4
    assert reply.stats.usage.output_tokens > 0
    assert reply.stats.cost_usd > 0
    assert reply.stats.conditions == [Condition.usage_missing]


def test_floats_are_token_counts() -> None:
    reply, _ = ask(OPENAI, completion({"content": "Hi"}, usage={"prompt_tokens": 100.0, "completion_tokens": 2.0}))
    assert (reply.stats.usage.input_tokens, reply.stats.usage.output_tokens) == (100, 2)
    assert reply.stats.conditions == []


def test_several_conditions_hold_at_once() -> None:
    message = {"content": f"<think>{THOUGHT}</think>", **called("functions.get_order", '{"order')}
    reply, _ = ask(OPENAI, completion(message, "length", usage=None))
    assert set(reply.stats.conditions) == {
        "thinking_left", "tool_name_marked", "arguments_malformed", "cut", "usage_missing",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("dialect", "changed", "fits"),
    [
        (OPENAI, {}, lambda call_id: len(call_id) <= 40 and call_id.replace("_", "").replace("-", "").isalnum()),
        (LITELLM, {}, lambda call_id: len(call_id) <= 40),
        (CLAUDE, {}, lambda call_id: call_id.replace("_", "").replace("-", "").isalnum()),
        (OPENAI, {"model": "mistral-large-latest"}, lambda call_id: len(call_id) == 9 and call_id.isalnum()),
        (VLLM, {}, lambda call_id: True),
    ],
)
def test_ids_of_calls_fit_whoever_gets_them(dialect: Dialect, changed: dict[str, Any], fits: Any) -> None:
    odd = ("functions.get_order:0", "x" * 46, "call_1")
    calls = tuple(ToolCallText(call_id, "get_order", "{}") for call_id in odd)
    results = [ChatMessage("tool", "done", tool_call_id=call_id) for call_id in odd]
    asked = request(messages=(*HISTORY, ChatMessage("assistant", None, calls), *results))
    _, server, _ = talk(dialect, dialect.reply("Fine"), asked=asked, **changed)
    sent = server.seen[0].body["messages"]
    if dialect is CLAUDE:
        made = [block["id"] for block in sent[-2]["content"]]
        answered = [block["tool_use_id"] for block in sent[-1]["content"]]
    else:
        made = [call["id"] for call in sent[2]["tool_calls"]]
        answered = [message["tool_call_id"] for message in sent[3:]]
    assert made == answered
    assert len(set(made)) == 3
    assert all(map(fits, made))
    assert dialect is not VLLM or made == list(odd)


@pytest.mark.parametrize("dialect", [OPENAI, LITELLM, CLAUDE], ids=lambda dialect: dialect.name)
def test_a_server_that_drops_turns_without_a_word_is_told_by_its_token_counts(dialect: Dialect) -> None:
    """As Ollama and llama.cpp do with what does not fit the context they were started with."""
    counts = (500, 900, 1000, 990, 1300)
    answers = [dialect.reply("Hello", tokens=(count, 20, 0)) for count in counts]

    async def converse(model: Model, server: Server, hand: Hand) -> list[list[str]]:
        history, found = list(HISTORY), []
        for turn in range(len(counts)):
            reply = await model.complete(request(messages=tuple(history), tools=None))
            found.append([f"{name}: {reply.stats.details[name]}" for name in reply.stats.conditions])
            history += [ChatMessage("assistant", reply.text), ChatMessage("user", f"{turn} " + "and further " * 60)]
        return found

    found, _, _ = talk(dialect, *answers, then=converse)
    assert [len(conditions) for conditions in found] == [0, 0, 0, 1, 0]
    assert found[3][0].startswith("history_cut: its server counts 990 tokens, and counted 1000 before")


def test_prompts_that_shrink_for_our_own_reasons_are_calm() -> None:
    """Another conversation, a history that was cut, one that hardly grew."""
    answer = OPENAI.reply("Hello", tokens=(1000, 20, 0))
    long = ChatMessage("user", "and further " * 60)

    async def converse(model: Model, server: Server, hand: Hand) -> list[str]:
        histories = [HISTORY, (*HISTORY, ChatMessage("user", "Hm?")), (HISTORY[0], long, long), (*HISTORY, long, long)]
        replies = [await model.complete(request(messages=messages, tools=None)) for messages in histories[:3]]
        replies.append(await model.complete(request(messages=histories[3], tools=None, session="another")))
        return [name for reply in replies for name in reply.stats.conditions]

    assert talk(OPENAI, answer, then=converse)[0] == []
