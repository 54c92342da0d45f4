"""Everything wrong with the remote models of a run is said at once, before anything starts."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tau2_fleet.errors import UserError
from tau2_fleet.llm.http import HttpPool
from tau2_fleet.llm.preflight import preflight
from tau2_fleet.llm.settings import ModelSettings, Provider
from tests.llm.dialects import CLAUDE, OPENAI
from tests.llm.serving import Server, serving, status_answer


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


def test_one_cheap_call_is_made_with_the_model_s_own_parameters() -> None:
    async def run() -> tuple[Server, Server]:
        async with serving(OPENAI.reply("ready")) as one, serving(CLAUDE.reply("ready")) as two, HttpPool() as http:
            models = {
                "user": ModelSettings(model="m", base_url=one.url, temperature=None, reasoning_effort="low"),
                "judge": ModelSettings(Provider.anthropic, "c", base_url=two.url, max_context_tokens=90_000),
            }
            await preflight(models, http)
            return one, two

    one, two = asyncio.run(run())
    [first], [second] = one.seen, two.seen
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
