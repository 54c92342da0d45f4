"""Parts of the way to a model, each by itself: money, keys, ends of life, lengths, thinking, mended calls."""

from __future__ import annotations

import asyncio
import base64
import math
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from tau2_fleet.errors import UserError
from tau2_fleet.llm.allowance import Allowance, BudgetError, PaidModel
from tau2_fleet.llm.call_mending import clean_name, marks_inside, mend_arguments, taken_apart
from tau2_fleet.llm.clock import Clock
from tau2_fleet.llm.completion import count, is_missing, model_id
from tau2_fleet.llm.conditions import Condition, why_unusable
from tau2_fleet.llm.factory import Limiters, build
from tau2_fleet.llm.failures import Failure, FailureCause
from tau2_fleet.llm.http import HttpPool
from tau2_fleet.llm.keys import authorization, basic_auth, credential_problem, file_content, find_key, key_name
from tau2_fleet.llm.lengths import KnownLengths
from tau2_fleet.llm.lifetime import NONE_ANNOUNCED, ModelEnd, day, lifetime_of, model_ends, own_name
from tau2_fleet.llm.limiter import Limiter, bearable
from tau2_fleet.llm.outage import Outage
from tau2_fleet.llm.prices import Price
from tau2_fleet.llm.prompt_growth import PromptGrowth
from tau2_fleet.llm.settings import LifetimeSettings, ModelSettings, PoolSettings, PriceSettings, Provider
from tau2_fleet.llm.thought import Thought, thought_in
from tau2_fleet.llm.types import CallStats, ChatMessage, ChatRequest, Reply, ToolCallText, ToolSet, Usage

Json = dict[str, Any]
TOOLS = ToolSet.of([{"type": "function", "function": {"name": "find_user"}}])
OFFERED = frozenset({"find_user", "get_order"})


class Pot:
    """So many dollars."""

    def __init__(self, usd: float) -> None:
        self.usd = usd
        self.told: list[float] = []

    def draw(self, usd: float) -> float:
        if usd > self.usd:
            return 0.0
        self.usd -= usd
        return usd

    def refused(self, usd: float) -> None:
        self.told.append(usd)


def request(*messages: ChatMessage, session: str = "run/1", tools: ToolSet | None = None) -> ChatRequest:
    return ChatRequest(list(messages), session, tools)


def test_a_request_waits_for_what_others_do_not_use_and_is_refused_where_none_is_in_flight() -> None:
    async def scene() -> None:
        pot = Pot(1.0)
        allowance = Allowance(pot)
        await allowance.set_aside(0.75)
        assert (pot.usd, allowance.at_hand_usd) == (0.25, 0.0)
        waiting = asyncio.create_task(allowance.set_aside(0.5))
        await asyncio.sleep(0)
        assert not waiting.done()
        allowance.settle(0.75, 0.5)
        await waiting
        assert (pot.usd, allowance.at_hand_usd) == (0.0, 0.0)
        allowance.settle(0.5, 0.75)
        assert allowance.at_hand_usd == -0.25
        with pytest.raises(
            BudgetError, match=r"max_cost_usd is used up: a request that may cost \$0\.1250 was not sent"
        ):
            await allowance.set_aside(0.125)
        assert pot.told == [0.125]

    asyncio.run(scene())


def test_a_paid_request_sets_aside_its_prompt_and_the_longest_reply_so_far() -> None:
    async def scene() -> None:
        pot = Pot(100.0)
        allowance = Allowance(pot)
        messages = (ChatMessage("system", "x" * 300), ChatMessage("user", "y" * 600))
        size = sum(len(message.encoded) for message in messages)
        price = Price(1e6, 1e6)
        for model, longest in ((PaidModel(allowance, price, 50), 50), (PaidModel(allowance, price, None), 400)):
            pot.usd, allowance.at_hand_usd = 1e6, 0.0
            stats = CallStats("m", "openai", cost_usd=7.0)
            async with model.paying(request(*messages), stats):
                assert 1e6 - pot.usd == size // 3 + longest
                stats.cost_usd += 3.0
                stats.usage.output_tokens = 500
            assert allowance.at_hand_usd == size // 3 + longest - 3.0
            pot.usd, allowance.at_hand_usd = 1e6, 0.0
            assert TOOLS is not None
            async with model.paying(request(*messages, tools=TOOLS), CallStats("m", "openai")):
                assert 1e6 - pot.usd == (size + len(TOOLS.encoded)) // 3 + 500

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("sk-1234567890", None), ("EMPTY", None), ("", None), ("no-key", None), ("a q", "a line break or a blank"),
        ("key\n", "a line break or a blank"), ("/etc/passwd", "the form of a path"), ("~", "the form of a path"),
        ("/no/such/file:/etc", "the form of a path"), ("/nothing/of/the/kind", None),
        ("schlüssel-123456", "beyond ASCII"), ("abc", "has only 3 characters"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_key_is_told_without_repeating_it(value: str, problem: str | None) -> None:
    found = credential_problem(value)
    assert (found is None) == (problem is None)
    if problem is not None and found is not None:
        assert problem in found
        assert value not in found


def test_a_name_and_a_password_are_sent_as_basic_authentication_and_a_key_as_a_bearers() -> None:
    basic = basic_auth("ann:s3cret-word")
    assert basic == "Basic " + base64.b64encode(b"ann:s3cret-word").decode() == authorization(basic)
    assert authorization("sk-1") == "Bearer sk-1"
    settings = ModelSettings(model="m", base_url="http://x", basic_auth_env="MINE")
    found = find_key(settings, {"MINE": "ann:s3cret-word"})
    assert found is not None
    assert (found.env, found.value) == ("MINE", basic)
    settings.api_key_env = "KEY"
    assert key_name(settings) == "KEY"
    found = find_key(settings, {"KEY": "ann:s3cret-word"})
    assert found is not None
    assert found.value == "ann:s3cret-word"


def test_a_key_file_is_read_without_its_line_break_and_none_where_it_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "key").write_text(" sk-1\n")
    (tmp_path / "odd").write_bytes(b"\xff")
    assert file_content(str(tmp_path / "key")) == file_content("~/key") == "sk-1"
    assert file_content("~/odd") is file_content("~/none") is file_content("~") is None


def lived(model: str, ends: str | None = "2026-12-11", **more: Any) -> LifetimeSettings:
    return LifetimeSettings(model=model, ends=ends, **more)


def test_the_end_of_a_models_life_is_its_days() -> None:
    end = ModelEnd("m", date(2026, 12, 11), None, "its file", ("user",))
    days = [date(2026, 10, 11), date(2026, 10, 12), date(2026, 12, 11), date(2026, 12, 12)]
    assert [end.is_near(one) for one in days] == [False, True, True, False]
    assert [end.is_over(one) for one in days] == [False, False, False, True]
    assert day("2026-12-11") == end.ends
    for odd in ("2026-2-1", "11.12.2026", "2026-13-01", "2026-12-11 "):
        with pytest.raises(ValueError, match=r"."):
            day(odd)


def test_what_is_known_of_a_models_life_is_about_that_model() -> None:
    known = {"gpt-5": lived("gpt-5"), "gpt-6": lived("gpt-6", "2027-01-01")}
    stated = lived("openai/gpt-5", "2026-11-11")
    own = ModelSettings(model="gpt-5", lifetime=stated)
    assert lifetime_of(own, known) is stated
    assert lifetime_of(ModelSettings(model="openai/responses/gpt-6", lifetime=stated), known) is known["gpt-6"]
    assert lifetime_of(ModelSettings(model="gpt-7", lifetime=stated), known) is None
    assert lifetime_of(ModelSettings(model="gpt-6", lifetime=lived("gpt-6")), {}) is not None
    assert lifetime_of(ModelSettings(model="gpt-5", base_url="http://x", lifetime=stated), known) is None
    assert lifetime_of(ModelSettings(Provider.vllm, "gpt-5"), known) is None
    assert (own_name(None), own_name("openai/gpt-5"), own_name("azure/gpt-5")) == ("", "gpt-5", "azure/gpt-5")


def test_each_model_of_a_run_ends_once_and_what_its_provider_says_counts_more() -> None:
    models = {role: ModelSettings(model=name) for role, name in [("user", "a"), ("judge", "a"), ("x", "b"), ("y", "c")]}
    known = {"a": lived("a", successor="a2", source="a page"), "b": lived("b", NONE_ANNOUNCED), "c": lived("c")}
    first = ModelEnd("a", date(2026, 12, 11), "a2", "a page", ("user", "judge"))
    last = ModelEnd("c", date(2026, 12, 11), None, "its file in conf/llm", ("y",))
    assert model_ends(models, known) == [first, last]
    assert model_ends(models, {"c": lived("c", None)}) == []
    told = {"user": date(2027, 1, 1), "y": None, "x": date(2026, 1, 1)}
    provider = "the provider's list of models"
    assert model_ends(models, known, told) == [
        ModelEnd("a", date(2027, 1, 1), "a2", provider, ("user",)),
        ModelEnd("a", date(2026, 12, 11), "a2", "a page", ("judge",)),
        ModelEnd("b", date(2026, 1, 1), None, provider, ("x",)),
    ]


def test_conditions_of_servers_come_first_and_say_why_nothing_came() -> None:
    assert [one for one in Condition if one.of_server] == [*Condition][: Condition.usage_missing.rank + 1]
    assert not Condition.empty.of_server
    assert (Condition.aborted.rank, Condition.error_inside.rank) == (0, 1)
    assert why_unusable([], {}) == why_unusable(["repeated"], {}) == "nothing came"
    everything = ["degenerate", "filtered", "cut", "markup_left", "only_thinking"]
    assert why_unusable(everything, {Condition.markup_left: "<tool_call>"}) == (
        "all of it was thinking, a tool call stood in that (<tool_call>), it was cut at its limit of tokens, "
        "it was filtered, it was one cycle of characters"
    )
    assert why_unusable(["markup_left"], {}) == "a tool call stood in that (markup)"


def test_thinking_goes_back_in_the_form_in_which_it_came() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}", "mark": 2}, "extra_content": 1}
    message: Json = {
        "role": "assistant", "content": [{"type": "thinking", "thinking": "Hm"}, {"type": "text", "text": "Hi"}],
        "reasoning": "R", "tool_calls": [call, "odd"],
        "provider_specific_fields": {"thought_signature": "s", "refusal": "no", "thinking_blocks": []},
    }  # fmt: skip
    found = thought_in(message)
    assert found is not None
    assert found.fields == {"reasoning": "R", "provider_specific_fields": {"thought_signature": "s"}}
    assert found.calls == ({"extra_content": 1, "function": {"mark": 2}}, {})
    assert found.parts == ({"type": "thinking", "thinking": "Hm"},)
    again: Json = {"content": "Hi", "tool_calls": [{"id": "1", "function": {"name": "f"}}]}
    found.put_into(again)
    assert again["content"] == [{"type": "thinking", "thinking": "Hm"}, {"type": "text", "text": "Hi"}]
    assert again["tool_calls"] == [{"id": "1", "function": {"name": "f", "mark": 2}, "extra_content": 1}]
    assert again["reasoning"] == "R"
    silent: Json = {"content": None}
    found.put_into(silent)
    assert silent["content"] == [{"type": "thinking", "thinking": "Hm"}]
    plain = {
        "content": "Hi",
        "tool_calls": [{"function": {"name": "f", "arguments": None}, "id": "1"}, {"function": 3}],
    }
    assert thought_in(plain) is thought_in({"provider_specific_fields": []}) is thought_in({}) is None


def test_a_thought_that_cannot_be_sent_is_none() -> None:
    assert Thought().empty
    assert Thought().sendable() is Thought(calls=({},)).sendable() is None
    assert Thought(prefix="\ud800").sendable() is Thought(fields={"a": {1}}).sendable() is None
    thought = Thought(blocks=({"a": 1},)).with_prefix("<think>")
    assert thought.sendable() is thought
    message: Json = {"content": None}
    thought.put_into(message)
    assert message["content"] == "<think>"


def test_each_provider_url_and_key_has_a_limit_of_its_own_and_paid_ones_are_bound() -> None:
    limiters = Limiters(most={Provider.anthropic: 3})
    pool = ModelSettings(Provider.vllm, "m", pool=PoolSettings(name="agent"))
    one, twin = ModelSettings(model="a"), ModelSettings(model="a", base_url="http://x")
    claude = ModelSettings(Provider.anthropic, "c")
    asked = [pool, one, ModelSettings(model="b"), twin, claude]
    assert len({id(limiters.of(settings)) for settings in asked}) == 4
    together = ModelSettings(Provider.litellm, "together_ai/x")
    assert limiters.of(together) is limiters.of(ModelSettings(Provider.litellm, "together_ai/y"))
    assert limiters.of(together) is not limiters.of(ModelSettings(Provider.litellm, "nebius/x"))
    assert list(limiters.of_providers()) == ["openai", "openai 2", "anthropic", "litellm", "litellm 2"]
    limiters.bound(5)
    assert [limiters.of(settings).most for settings in asked] == [math.inf, 5, 5, 5, 3]
    assert [limiters.of(settings).limit for settings in asked] == [math.inf, 5, 5, 5, 3]
    assert Limiter(Clock(), most=100).limit == 10


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (ModelSettings(Provider.vllm, "m"), "x: provider vllm needs a pool of the fleet, and there is none"),
        (ModelSettings(Provider.openai), "x: provider openai needs the key `model`, the name that it knows"),
        (
            ModelSettings(model="m", max_output_tokens=100, max_context_tokens=100),
            r"x: max_output_tokens \(100\) leaves no room in max_context_tokens \(100\)",
        ),
    ],
)
def test_settings_that_cannot_be_are_told(settings: ModelSettings, said: str) -> None:
    nobody: Any = None
    with pytest.raises(UserError, match=f"^{said}$"):
        build(settings, name="x", http=nobody)


def test_only_models_with_a_price_ask_for_money() -> None:
    allowance = Allowance(Pot(0.0))

    async def reply_of(price: PriceSettings | None) -> Reply:
        async with HttpPool() as http:
            settings = ModelSettings(model="m", base_url="http://127.0.0.1:9", price=price)
            return await build(settings, name="x", http=http, allowance=allowance, call_timeout_s=0.001).complete(
                request(ChatMessage("user", "Hi"))
            )

    with pytest.raises(BudgetError):
        asyncio.run(reply_of(PriceSettings(1.0, 1.0)))
    with pytest.raises(Exception, match=r".") as told:
        asyncio.run(reply_of(None))
    assert not isinstance(told.value, BudgetError)


def test_a_servers_wish_is_heard_as_far_as_a_call_can_bear() -> None:
    assert [bearable(*wish) for wish in [(5, 10), (10, 10), (100, 99), (100, 101), (59, 1)]] == [5, 10, 60, 100, 59]


def test_what_is_known_of_a_conversations_length_gives_the_same_bound_at_once() -> None:
    first, second, result = (
        ChatMessage("system", "s" * 90),
        ChatMessage("user", "u" * 60),
        ChatMessage("tool", "9" * 40),
    )
    assert TOOLS is not None
    known = KnownLengths()
    assert (known.most(request(first), None), known.density, known.size) == (None, None, 0)
    unknown = known.measure(request(first, result), None).of(None)
    sizes = [len(message.encoded) for message in (first, result)]
    assert unknown.low == pytest.approx(sum(sizes) / 6)
    assert unknown.high == pytest.approx(sizes[0] / 3 + sizes[1] / 2 + 16)
    assert unknown.most == sum(sizes) + 16
    known.learn(request(first, second, tools=TOOLS), 100)
    size = len(first.encoded) + len(second.encoded)
    assert known.size == size
    share = 100 / (size + len(TOOLS.encoded))
    assert known.density == pytest.approx(1 / share)
    for densest in (None, 1.5, 4.0):
        longer = request(first, second, result, tools=TOOLS)
        whole = known.measure(longer, densest).of(None)
        assert known.most(longer, densest) is not None
        assert whole.low == pytest.approx(100 + len(result.encoded) / 6)
    assert known.most(longer, None) == pytest.approx(known.measure(longer, None).of(None).most)
    assert known.most(request(second), None) is None
    other = ToolSet.of([{"function": {"name": "g"}}])
    assert other is not None
    with_others = known.measure(request(first, second, tools=other), 4.0).of(None)
    learnt = share * size
    assert with_others.low == pytest.approx(learnt + len(other.encoded) / 6)
    assert with_others.high == pytest.approx(learnt + len(other.encoded) / 3)
    assert with_others.most == pytest.approx(learnt + len(other.encoded) / 2)
    known.learn(longer, 150)
    assert known.measure(longer, None).of(None).most == pytest.approx(150)
    assert known.size == size + len(result.encoded)
    strange = ChatMessage("user", "z" * 30)
    known.learn(request(strange), 12)
    assert known.size == len(strange.encoded)
    assert known.density == pytest.approx(len(strange.encoded) / 12)
    assert known.measure(request(first), None).of(None).low < 100
    known.learn(request(strange), 10**9)
    assert known.measure(request(strange), None).of(None).most == pytest.approx(12)


def test_a_share_of_tokens_is_never_more_than_a_text_can_have() -> None:
    known, message = KnownLengths(), ChatMessage("user", "z" * 30)
    known.learn(request(message), 10**9)
    assert known.measure(request(message), None).of(None).most == 2 * len(message.encoded)


def test_a_prompt_that_did_not_grow_with_its_conversation_was_cut_by_its_server() -> None:
    growth = PromptGrowth()
    opening, long, short = ChatMessage("system", "s"), ChatMessage("user", "u" * 700), ChatMessage("user", "u")
    assert growth.cut_by_server(request(opening), 100) is None
    assert growth.cut_by_server(request(opening, short), 99) is None
    said = growth.cut_by_server(request(opening, short, long), 99)
    added = len(short.encoded) + len(long.encoded)
    assert said == f"its server counts 99 tokens, and counted 100 before {added} bytes were added"
    assert growth.cut_by_server(request(opening, short, long, long), 100) is None
    assert growth.cut_by_server(request(opening, short, short, short, long), 50) is None
    assert growth.cut_by_server(request(opening, short, short, short, long, long), 50) is not None
    growth.forget("run/1")
    assert growth.cut_by_server(request(opening, short, short, short, long, long, long), 50) is None
    assert growth.cut_by_server(request(), 1) is None
    assert growth.cut_by_server(request(opening, session="run/2"), 100) is None
    assert growth.cut_by_server(request(opening, long, session="run/2"), 100) is not None
    assert growth.cut_by_server(request(opening, long, long, session="run/2"), 101) is None


@pytest.mark.parametrize(
    ("name", "clean"),
    [
        ("find_user", "find_user"), (" find_user\n", "find_user"), ("functions.find_user:0", "find_user"),
        ("functions_find_user_0", "find_user"), ("find_userfind_user", "find_user"),
        ("<|channel|>find_user", "find_user"),
        ("find_usercommentary", "find_user"), ("find_user get_order", None), ("find_user please", None), ("find", None),
        ("assistant to=find_user 3", "find_user"), ("", None),
    ],
)  # fmt: skip
def test_the_tool_in_a_name_with_something_around_it(name: str, clean: str | None) -> None:
    assert clean_name(name, OFFERED) == clean


@pytest.mark.parametrize(
    ("arguments", "mended", "condition"),
    [
        ('{"a": 1}', '{"a": 1}', None), ("", "{}", "arguments_empty"), (" null ", "{}", "arguments_empty"),
        ('"{\\"a\\": 1}"', '{"a": 1}', "arguments_double"), ('{"a": 1}<|im_end|>', '{"a": 1}', "arguments_double"),
        ('```json\n{"a": 1}\n```', '{"a": 1}', "arguments_double"), ('{}{"a": 1}', '{"a": 1}', "arguments_double"),
        ('{"a": 1}{"a": 1}', '{"a": 1}', "arguments_double"), ('{"a": 1}{"a": 2}', None, "arguments_malformed"),
        ('{\\"a\\": 1}', '{"a": 1}', "arguments_double"), ('{\\"a\\": 1', None, "arguments_malformed"),
        ("[1]", None, "arguments_malformed"),
        ('"\\"\\\\\\"x\\\\\\"\\""', None, "arguments_malformed"), ("3", None, "arguments_malformed"),
        ('{"name": "find_user", "arguments": {"a": 1}}', '{"a":1}', "arguments_double"),
        ('{"name": "find_user", "parameters": "{\\"a\\": 1}"}', '{"a": 1}', "arguments_double"),
        ('{"id": "1", "function": {"name": "find_user", "arguments": {"a": 1}}}', '{"a":1}', "arguments_double"),
        ('{"name": "find_user", "arguments": 3}', '{"name": "find_user", "arguments": 3}', None),
        ('{"name": "find_user", "age": 3}', '{"name": "find_user", "age": 3}', None),
        ('{"name": "other", "friend": "find_user"}', '{"name": "other", "friend": "find_user"}', None),
        ('{"a": ' + "[" * 60 + "]" * 60 + "}", '{"a": ' + "[" * 60 + "]" * 60 + "}", None),
    ],
)  # fmt: skip
def test_arguments_are_taken_out_of_what_is_around_them(
    arguments: str, mended: str | None, condition: str | None
) -> None:
    assert mend_arguments("find_user", arguments) == (arguments if mended is None else mended, condition)


def test_a_call_in_a_name_and_marks_in_a_value_are_seen() -> None:
    assert taken_apart('find_user{"a": 1}', OFFERED) == ("find_user", '{"a": 1}')
    assert taken_apart("find_user{", OFFERED) is taken_apart('find{"a": 1}', OFFERED) is None
    assert marks_inside('{"a": "<|im_end|>"}') == "<|im_end|>"
    assert marks_inside('{"a": "x</parameter>"}') == "</parameter"
    assert marks_inside('{"a": "1 < 2"}') is marks_inside("{}") is None


def test_counts_of_tokens_are_taken_as_far_as_they_can_be() -> None:
    assert [count(value) for value in (3, 3.0, 3.5, True, -1, 0, "3", None, 10**12)] == [3, 3, 0, 0, 0, 0, 0, 0, 0]
    assert [is_missing(Usage(*one)) for one in [(0, 1), (1, 0), (1, 1)]] == [True, True, False]
    assert model_id({"model": "m" * 300}) == "m" * 200
    assert model_id({"model": ""}) is model_id({"model": 3}) is model_id({}) is None


@pytest.mark.parametrize(
    ("calls", "general_after"),
    [(lambda n: (400, f"no such field {n}", f"run/{n}"), 20), (lambda n: (400, "no", "run/0"), None)],
)
def test_a_refusal_is_general_after_so_many_conversations(
    calls: Callable[[int], tuple[int, str, str]], general_after: int | None
) -> None:
    outage = Outage("m", Clock(), 3600.0)
    found = None
    for number in range(1, 31):
        status, text, session = calls(number)
        asked = request(ChatMessage("user", "Hi"), session=session)
        if outage.failed(Failure(FailureCause.refused, text, status=status), asked, "the line"):
            found = number
            break
    assert found == general_after
    assert outage.open == (None if general_after is None else "the line")


def test_a_model_that_never_replied_is_given_up_after_ten_like_failures() -> None:
    outage, asked = Outage("m", Clock(), 3600.0), request(ChatMessage("user", "Hi"))

    def fails(cause: FailureCause, times: int) -> list[bool]:
        return [outage.failed(Failure(cause, "x"), asked, "the line") for _ in range(times)]

    assert fails(FailureCause.overflow, 20) == [False] * 20
    assert fails(FailureCause.unusable, 9) == [False] * 9
    assert fails(FailureCause.connection, 9) == [False] * 9
    outage.replied(asked)
    assert fails(FailureCause.connection, 20) == [False] * 20
    outage = Outage("m", Clock(), 3600.0)
    assert fails(FailureCause.connection, 10) == [False] * 9 + [True]
    assert outage.open == "the line"


def test_messages_carry_what_json_cannot_and_names_that_providers_take() -> None:
    call = ToolCallText("1", "find user!" + "x" * 80, "[1]")
    assert call.sendable_name == ("find_user_" + "x" * 80)[:64]
    assert ToolCallText("1", "", "").sendable_name == "unnamed"
    assert call.sendable_arguments == '{"arguments_not_a_json_object":"[1]"}'
    assert ToolCallText("1", "f", "{\ud800").sendable_arguments == '{"arguments_not_a_json_object":"{?"}'
    message = ChatMessage("assistant", "a\ud800", (call,), thought=Thought(fields={"r": ["\ud800", {"x": "\ud800"}]}))
    assert b'"a?"' in message.encoded
    assert b'"r":["?",{"x":"?"}]' in message.encoded
    assert ChatMessage("assistant", None).as_dict()["content"] == ""
    assert ChatMessage("assistant", None, (call,)).as_dict()["content"] is None
    assert ToolSet.of([]) is None
