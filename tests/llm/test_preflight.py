"""Everything wrong with the remote models of a run is said at once, before anything starts."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tau2_fleet.errors import UserError
from tau2_fleet.llm.http import HttpPool
from tau2_fleet.llm.preflight import preflight, shutdown_dates
from tau2_fleet.llm.second_turn import try_two_turns
from tau2_fleet.llm.settings import ModelSettings, Provider, ThinkingHistory
from tau2_fleet.llm.types import ToolCallText
from tests.llm.dialects import ALL, CLAUDE, OPENAI, Dialect
from tests.llm.serving import Server, serving, status_answer
from tests.llm.test_thinking_history import DEMANDS, demanding


def check(models: dict[str, ModelSettings]) -> None:
    async def run() -> None:
        async with HttpPool() as http:
            await preflight(models, http)

    asyncio.run(run())


def test_all_problems_come_in_one_list(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MY_KEY", "very-secret")

    async def run() -> str:
        async with serving(status_answer(401, "bad very-secret")) as server, HttpPool() as http:
            refused = ModelSettings(model="m", base_url=f"{server.url}/v1", api_key_env="MY_KEY")
            models = {
                "user": ModelSettings(model="gpt-5"),
                "judge": ModelSettings(model="gpt-5"),
                "expert-1": ModelSettings(Provider.anthropic, "claude-opus"),
                "expert-2": refused,
                "agent": ModelSettings(Provider.vllm, "m"),
            }
            with pytest.raises(UserError) as caught:
                await preflight(models, http)
            return str(caught.value)

    told = asyncio.run(run())
    assert "3 of 3" in told
    assert "user, judge (gpt-5): OPENAI_API_KEY" in told
    assert "expert-1 (claude-opus): ANTHROPIC_API_KEY" in told
    assert "expert-2 (m): the key in MY_KEY" in told
    assert "very-secret" not in told
    assert "agent" not in told


def test_cheap_calls_are_made_with_the_model_s_own_parameters() -> None:
    async def run() -> tuple[Server, Server]:
        async with serving(OPENAI.reply("ready")) as one, serving(CLAUDE.reply("ready")) as two, HttpPool() as http:
            models = {
                "user": ModelSettings(model="m", base_url=one.url, temperature=None, reasoning_effort="low"),
                "judge": ModelSettings(Provider.anthropic, "c", base_url=two.url, max_context_tokens=90_000),
            }
            await preflight(models, http)
            return one, two

    one, two = asyncio.run(run())
    [first, _], [second, _] = one.seen, two.seen
    assert first.body["max_tokens"] <= 256
    assert first.body["reasoning_effort"] == "low"
    assert "temperature" not in first.body
    assert second.body["max_tokens"] <= 256


def test_a_reasoning_model_that_used_up_its_tokens_is_there() -> None:
    told = "Could not finish the message because max_tokens or model output limit was reached. Please try again"

    async def run() -> None:
        async with serving(status_answer(400, told)) as server, HttpPool() as http:
            await preflight({"user": ModelSettings(model="m", base_url=server.url)}, http)

    asyncio.run(run())


def test_fleets_are_not_asked() -> None:
    check({"agent": ModelSettings(Provider.vllm, "m"), "user": ModelSettings(Provider.simulated)})


def test_clients_of_other_providers_are_imported_only_when_needed() -> None:
    code = "import sys, tau2_fleet.llm.factory, tau2_fleet.llm.preflight, tau2_fleet.llm.openai_compatible\n" + (
        "print([name for name in ('litellm', 'anthropic', 'openai', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_litellm_reads_no_env_file_of_parent_folders(tmp_path: Path) -> None:
    folder = tmp_path / "deep"
    folder.mkdir()
    (folder.parent / ".env").write_text("STRAY_KEY=found\n")
    code = "import os, tau2_fleet.llm.litellm_any\nprint(os.environ.get('STRAY_KEY'))"
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'src'}"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=folder, env=environment
    )
    assert done.stdout.strip() == "None"


def shut_down(models: dict[str, ModelSettings], answer: Any) -> dict[str, date | None]:
    """What a server with this list of models says of theirs."""

    async def run() -> dict[str, date | None]:
        async with serving(OPENAI.reply("ready"), models=answer) as server, HttpPool() as http:
            for settings in models.values():
                settings.base_url = f"{server.url}/v1"
            return await shutdown_dates(models, http)

    return asyncio.run(run())


def test_the_end_that_openai_states_is_read_for_every_role() -> None:
    models = {
        "user": ModelSettings(model="gpt-5"),
        "judge": ModelSettings(model="gpt-6"),
        "expert-1": ModelSettings(Provider.litellm, "openai/responses/gpt-5"),
        "expert-2": ModelSettings(model="unknown"),
        "expert-3": ModelSettings(Provider.anthropic, "gpt-5"),
    }
    listed = [
        {"id": "gpt-5", "shutdown_date": "2027-03-01"},
        {"id": "gpt-6", "shutdown_date": None},
    ]
    day = date(2027, 3, 1)
    assert shut_down(models, {"data": listed}) == {"user": day, "judge": None, "expert-1": day}


@pytest.mark.parametrize(
    "answer",
    [
        None,
        {"data": [{"id": "m"}]},
        {"data": [{"id": "m", "shutdown_date": "soon"}]},
        {"data": [3]},
        {"data": None},
        [1],
        {"data": [{"name": "m"}]},
    ],
)
def test_a_list_of_models_that_says_nothing_leaves_the_file_in_force(answer: Any) -> None:
    assert shut_down({"user": ModelSettings(model="m")}, answer) == {}


def test_a_server_that_is_not_there_leaves_the_file_in_force() -> None:
    async def run() -> dict[str, date | None]:
        async with HttpPool() as http:
            return await shutdown_dates({"user": ModelSettings(model="m", base_url="http://127.0.0.1:1")}, http)

    assert asyncio.run(run()) == {}


def test_models_that_will_be_sent_tools_are_asked_with_tools() -> None:
    """OpenAI's newer models refuse tools beside reasoning on this API: told before anything starts, in its words."""

    async def refuse_tools(request: web.Request) -> web.StreamResponse:
        if "tools" in await request.json():
            return await status_answer(400, "Function tools with reasoning_effort are not supported")(request)
        return await OPENAI.reply("ready")(request)

    async def run() -> str:
        async with serving(refuse_tools) as server, HttpPool() as http:
            models = {"judge": ModelSettings(model="m", base_url=server.url)}
            await preflight(models, http, ["expert-1"])
            with pytest.raises(UserError) as caught:
                await preflight({**models, "expert-1": models["judge"]}, http, ["expert-1"])
            return str(caught.value)

    assert "judge, expert-1 (m): " in (told := asyncio.run(run()))
    assert "Function tools with reasoning_effort are not supported" in told


@pytest.mark.parametrize("needle", DEMANDS)
@pytest.mark.parametrize("policy", list(ThinkingHistory))
def test_a_server_that_wants_its_thinking_back_says_so_before_the_run(needle: str, policy: ThinkingHistory) -> None:
    async def run() -> str:
        async with serving(demanding(needle, DEMANDS[needle])) as server, HttpPool() as http:
            models = {"expert-1": ModelSettings(model="m", base_url=server.url, thinking_history=policy)}
            try:
                await preflight(models, http, with_tools=("expert-1",))
            except UserError as error:
                return str(error)
            return ""

    told = asyncio.run(run())
    if policy == ThinkingHistory.none:
        assert "second turn" in told
        assert "set thinking_history=turn" in told
    else:
        assert told == ""


@pytest.mark.parametrize("dialect", ALL, ids=lambda dialect: dialect.name)
def test_two_turns_are_made_with_a_call_between_them(dialect: Dialect) -> None:
    async def run() -> list[Any]:
        called = dialect.reply(None, (ToolCallText("c1", "get_weather", '{"city":"Paris"}'),))
        async with serving(called, dialect.reply("Sunny")) as server, HttpPool() as http:
            model = dialect.model_of(server, http)
            await try_two_turns(model, with_tools=True)
            await model.close()
            return [seen.body for seen in server.seen]

    first, second = asyncio.run(run())
    assert "18 degrees" not in str(first)
    assert "18 degrees" in str(second)
    assert first["tools"] == second["tools"]
