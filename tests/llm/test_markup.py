"""Calls of an offered tool are told from talk, whichever way a model or a half-fit parser writes them."""

from __future__ import annotations

import pytest

from tau2_fleet.llm.markup import find_markup

NAMES = ("get_order", "find_user", "reset_apn")
ARGUMENTS = '{"order_id": "#W1"}'


@pytest.mark.parametrize(
    "text",
    [
        f"Let me see. get_order{ARGUMENTS}",
        f"I'll check.functions.get_order:0{ARGUMENTS}",
        f"[TOOL_CALLS]get_order[ARGS]{ARGUMENTS}",
        f"function<｜tool▁sep｜>get_order\n```json\n{ARGUMENTS}\n```",
        'call:get_order{order_id:"#W1"}',
        "call:default_api:get_order{order_id:#W1}",
        '<function_call name="get_order">',
        '<tool name="get_order">',
        '<call tool="get_order">',
        "<tool>get_order</tool>",
        "<get_order>\n<order_id>#W1</order_id>\n</get_order>",
        '[TOOL_REQUEST]{"nme": 1}[END_TOOL_REQUEST]',
        "I will call get_order(order_id=#W1)",
        'env.get_order("#W1")',
        "- tool: get_order\n  arguments: {}",
        f"**get_order**\n{ARGUMENTS}",
        f"**Tool call:** get_order\n{ARGUMENTS}",
        'Tool: get_order\nInput: {"order_id": 1}',
        "to=get_order code<|message|>{}",
        "assistant to=get_order",
        '{"api_name": "get_order", "parameters": {}}',
        f"call get_order with {ARGUMENTS}",
        f"get_order | {ARGUMENTS}",
        f"<|assistant|>get_order\n{ARGUMENTS}",
        f'["get_order", {ARGUMENTS}]',
        '{"name": get_order, "arguments": {}}',
        f'name: "get_order", arguments: {ARGUMENTS}',
        'get_order order_id="#W1"',
        'DSML function_calls invoke name="get_order"',
        '{"name": "look_up", "parameters": {"order_id": 1}}',
        '{"tool_uses":[{"recipient_name":"functions.get_order","parameters":{}}]}',
        '<|action_start|><|plugin|>{"name": "get_order"}<|action_end|>',
        'get_order.call(order_id="#W1")',
        "get_order\norder_id\n#W1",
        '\\u003ctool_call\\u003e{"nme":"x"}',
        '&lt;function=x&gt;{"order_id": 1}',
        '＜tool_call＞{"nme": "x"}',
        f'{{"func": "get_order", "args": {ARGUMENTS}}}',
        f'{{"toolName": "get_order", "args": {ARGUMENTS}}}',
        f"get_order -> {ARGUMENTS}",
        "{“name”: “get_order”, “arguments”: {}}",
        '[get_order (order_id="#W1")]',
        "<|tool_calls|><|tool_call:begin|>1<|tool_call:name|>x<|tool_call:args|>{}<|tool_call:end|>",
        "<ifm|tool_calls><ifm|tool_call>get_order<ifm|arg_key>order_id</ifm|arg_key>",
        '<dots_function_call><invoke name="get_order">',
        "]<]minimax[>[<tool_call>",
        '<functionname="get_order"><paramna',
        "<Function_Call>get_order</Function_Call>",
        f"<toolCall>{ARGUMENTS}",
        "&lt;｜tool▁calls▁begin｜&gt;get_order",
        '&lt;invoke name="get_order"&gt;',
        "&lt;get_order&gt;",
        r"{\"name\": \"get_order\", \"arguments\": {}}",
        r"get_order\n{\"order_id\": 1}",
        "｛“name”：“get_order”，“arguments”：｛｝｝",
        f"【get_order】{ARGUMENTS}",
        f"调用工具：get_order\n参数：{ARGUMENTS}",
        f"Ich rufe get_order auf mit {ARGUMENTS}",
        f"Вызываю функцию get_order с аргументами {ARGUMENTS}",
        '$ get_order --order_id "#W1"',
        "[get_order(order",
        'toolscall tool="get_order" index="0"argument key="order_id"',
        '{"name": "get_ord',
        '{"arguments": {"order_id": 1}, "na',
        'e": "get_order", "arguments": {}}',
        f"```json\n{ARGUMENTS}\n```",
        ARGUMENTS,
    ],
)
def test_a_call_is_told_from_talk(text: str) -> None:
    assert find_markup(text, NAMES) is not None


@pytest.mark.parametrize(
    "text",
    [
        "get_order is a tool that I have.",
        "Use the `reset_apn` function on your phone.",
        "Order: {id: 5}, {order} is fine",
        "Your order #W1 [see here](http://x) costs (5), i.e. 5 * (3+2)",
        "Name: John\nZip: 1234",
        "My user id is `get_user_1`",
        "I used find_user (by email) and it failed:\nno such user",
        "The steps are:\n- open Settings\n- tap (i)",
        'I asked get_order and it gave {"status": "pending"} for #W1.',
        "get_order (see above) says: ok -- done",
        "My note: “get_order” is wrong，（sorry）",
        "A & B &lt; C",
    ],
)
def test_talk_of_tools_and_of_code_is_calm(text: str) -> None:
    assert find_markup(text, NAMES) is None
