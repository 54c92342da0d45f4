"""A model that the configuration leaves to its server is recorded under the name that the server gives it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tau2_fleet.errors import UserError
from tau2_fleet.llm.endpoints import Endpoint
from tau2_fleet.llm.settings import ModelSettings, PoolSettings, Provider
from tau2_fleet.record.line import SimulationKey
from tau2_fleet.record.store import Store
from tau2_fleet.run.model_names import named_by_record, named_by_servers
from tau2_fleet.simulation.roles import Roles
from tests.batch.records import make_record
from tests.run.runs import inventory, records, run, summary
from tests.waiting import CEILING_S

POOLED = ModelSettings(Provider.vllm, pool=PoolSettings("agent"))


class Server:
    """A server elsewhere whose model a test can exchange."""

    model = "first"
    url = ""

    async def handle(self, request: web.Request) -> web.Response:
        if request.path == "/v1/models":
            return web.json_response({"data": [{"id": self.model, "max_model_len": 32768}]})
        message = {"role": "assistant", "content": "Anything else?"}
        usage = {"prompt_tokens": 10, "completion_tokens": 2}
        return web.json_response({"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage})


@contextmanager
def serving() -> Iterator[Server]:
    """A server in a thread of its own, for runs in processes."""
    server, loop, ready = Server(), asyncio.new_event_loop(), threading.Event()

    async def begin() -> web.AppRunner:
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", server.handle)
        runner = web.AppRunner(application)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        return runner

    def live() -> None:
        runner = loop.run_until_complete(begin())
        ready.set()
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=live)
    thread.start()
    assert ready.wait(CEILING_S)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def agents(run_dir: Path) -> list[Any]:
    """The agent's model by the summary, the results file and each record's calls."""
    info = json.loads((run_dir / "mock.json").read_text())["info"]
    calls = {call["model"] for record in records(run_dir) for call in record["calls"] if call["role"] == "agent"}
    return [summary(run_dir)["models"]["agent"]["model"], info["agent_info"]["llm"], *sorted(calls)]


def test_a_discovered_model_is_named_everywhere_and_another_one_does_not_go_on_with_its_run(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    with serving() as server:
        chosen = (
            "experiment=smoke",
            "server=external",
            "server.start_port=0",
            f"server.endpoints=[{server.url}]",
            "max_steps=4",
        )
        begun = run(run_dir, *chosen, "task_ids=[create_task_1]")
        assert begun.returncode == 0, begun.stderr
        assert agents(run_dir) == ["first"] * 3

        server.model = "second"
        written_again = run(None, f"resume={run_dir}")
        assert written_again.returncode == 0, written_again.stderr
        assert agents(run_dir) == ["first"] * 3, "nothing was left to run"

        refused = run(None, f"resume={run_dir}", "num_trials=2")
        assert refused.returncode == 1
        assert "was begun with the model first as agent; its servers now serve second" in refused.stderr
        assert agents(run_dir) == ["first"] * 3

        forced = run(None, f"resume={run_dir}", "num_trials=2", "resume_force=true")
        assert forced.returncode == 0, forced.stderr
        assert agents(run_dir) == ["second", "second", "first", "second"]
        assert inventory(run_dir)["finished"] == 2


def test_roles_that_share_a_pool_get_its_name_and_others_keep_theirs(tmp_path: Path) -> None:
    judge = ModelSettings(Provider.openai, "gpt-5")
    roles = Roles(POOLED, POOLED, judge, {"expert-1": ModelSettings(Provider.simulated, pool=PoolSettings("agent"))})
    served = Endpoint("agent/0", "http://h:1", "tiny")
    with Store(tmp_path) as store:
        named = named_by_servers(roles, lambda pool: [served, served], store, force=False)
        assert named_by_record(roles, store) == roles, "nothing is recorded yet"
        calls = [{"role": "agent", "model": "tiny"}, {"role": "judge", "model": "no"}]
        store.append(make_record(SimulationKey("mock", "1", 0), calls=calls))
        assert named_by_record(roles, store).agent.model == "tiny"
        assert named_by_record(roles, store).judge is judge
    assert {role: model.model for role, model in named.by_name().items()} == {
        "agent": "tiny",
        "user": "tiny",
        "expert-1": None,
        "judge": "gpt-5",
    }


def test_servers_of_one_pool_with_different_models_are_refused(tmp_path: Path) -> None:
    served = [Endpoint(f"agent/{name}", "http://h:1", name) for name in ("tiny", "huge")]
    with Store(tmp_path) as store, pytest.raises(UserError, match="pool agent serve different models: huge, tiny"):
        named_by_servers(Roles(POOLED, None, None, {}), lambda pool: served, store, force=True)
