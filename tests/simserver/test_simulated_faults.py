"""Faults on demand: each kind looks as it should, comes again for the same seed, and a retry gets through it."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tau2_fleet.fleet.settings import FaultKind, FaultSettings
from tau2_fleet.llm.completion import read_completion
from tau2_fleet.llm.examine import examine
from tau2_fleet.llm.failures import Failure
from tau2_fleet.llm.types import ToolSet
from tau2_fleet.simserver.faults import Fault, Faults
from tau2_fleet.simserver.policy_words import Session, parse_session
from tau2_fleet.simserver.spoilt_replies import REPEATED_TEXT, SPOILING
from tests.simserver.conversation import Conversation, tasks_of
from tests.simserver.process import MODEL, ROOT, RunningServer, running
from tests.waiting import CEILING_S

TASK = {
    "id": "t",
    "evaluation_criteria": {"actions": [{"requestor": "assistant", "name": "pay", "arguments": {"sum": 7}}]},
}
TOOLS = [{"type": "function", "function": {"name": "pay", "parameters": {"type": "object", "properties": {}}}}]
HELLO = [{"role": "user", "content": "Hello"}]
GIGANTIC = 3_000_000
FATAL = {FaultKind.crash, FaultKind.hang}
OPTIONS = FaultSettings(
    rate=1.0,
    kinds=[kind for kind in FaultKind if kind not in FATAL],
    most_in_a_row=1,
    slow_s=0.4,
    gigantic_bytes=GIGANTIC,
)


def as_json(options: FaultSettings) -> dict[str, Any]:
    return {name: getattr(options, name) for name in options.__dataclass_fields__}


def session_id(trial: int) -> str:
    return f"abcdef01/shop/t/{trial}/agent"


def session_of(trial: int) -> Session:
    session = parse_session(session_id(trial))
    assert session is not None
    return session


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("faults")
    with running(folder, {"shop": [TASK]}, seed=5, faults=as_json(OPTIONS)) as started:
        yield started


def send(server: RunningServer, session: str, timeout_s: float = CEILING_S) -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=timeout_s)
    body = json.dumps({"model": MODEL, "messages": HELLO, "tools": TOOLS})
    try:
        headers = {"Authorization": f"Bearer {server.key}", "X-Session-ID": session}
        connection.request("POST", "/v1/chat/completions", body, headers)
        response = connection.getresponse()
        return response.status, response.read(), dict(response.getheaders())
    finally:
        connection.close()


def is_right(answer: tuple[int, bytes, dict[str, str]]) -> bool:
    if answer[0] != 200:
        return False
    calls = json.loads(answer[1])["choices"][0]["message"].get("tool_calls", [])
    return [call["function"] for call in calls] == [{"name": "pay", "arguments": '{"sum":7}'}]


@pytest.mark.parametrize("kind", [kind for kind in FaultKind if kind not in FATAL])
def test_a_fault_comes_when_the_seed_says_so_and_the_retry_gets_through(server: RunningServer, kind: FaultKind) -> None:
    predicted = Faults(OPTIONS, 5, "agent:0")
    trials = [trial for trial in range(600) if (fault := predicted.draw(session_of(trial), 1)) and fault.kind is kind]
    assert len(trials) > 3
    for trial in trials[:3]:
        try:
            check(kind, send(server, session_id(trial)))
        except ConnectionResetError:
            assert kind is FaultKind.reset
        except http.client.IncompleteRead:
            assert kind is FaultKind.cut_off
        assert is_right(send(server, session_id(trial)))


def check(kind: FaultKind, answer: tuple[int, bytes, dict[str, str]]) -> None:
    """The answer is what a fault of this kind brings."""
    status, body, headers = answer
    expected = {
        FaultKind.rate_limited: 429,
        FaultKind.retry_after: 429,
        FaultKind.server_error: 500,
        FaultKind.unavailable: 503,
        FaultKind.timed_out: 408,
    }
    assert status == expected.get(kind, 200)
    if kind in expected:
        assert ("Retry-After" in headers) == (kind is FaultKind.retry_after)
    elif kind is FaultKind.slow:
        assert is_right(answer)
    elif kind is FaultKind.not_json:
        assert not is_json(body)
    elif kind is FaultKind.wrong_types:
        assert json.loads(body) != {}
    elif kind is FaultKind.empty:
        message = json.loads(body)["choices"][0]["message"]
        assert (message["content"], message.get("tool_calls")) == ("", None)
    elif kind is FaultKind.malformed_call:
        function = json.loads(body)["choices"][0]["message"]["tool_calls"][0]["function"]
        assert function["name"] != "pay" or not isinstance(parsed(function["arguments"]), dict)
    elif kind in SPOILING:
        check_spoilt(kind, json.loads(body))
    elif kind is FaultKind.repeated:
        assert json.loads(body)["choices"][0]["message"]["content"] == REPEATED_TEXT
    elif kind is FaultKind.gigantic:
        assert len(body) > GIGANTIC
        assert json.loads(body)["choices"]
    else:
        pytest.fail(f"{kind} brought a whole answer")


def check_spoilt(kind: FaultKind, completion: dict[str, Any]) -> None:
    """What a client finds in the reply is what the kind is called; a kind that needs a text finds none here."""
    if kind in (FaultKind.cut, FaultKind.arguments_empty):
        assert is_right((200, json.dumps(completion).encode(), {}))
        return
    if kind is FaultKind.long_id:
        assert len(completion["choices"][0]["message"]["tool_calls"][0]["id"]) == 46
        return
    if kind in (FaultKind.aborted, FaultKind.error_inside):
        with pytest.raises(Failure) as caught:
            read_completion(completion)
        assert caught.value.condition == kind.value
        return
    assert examine(read_completion(completion), ToolSet.of(TOOLS)).conditions == [kind.value]


def is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except ValueError:
        return False
    return True


def parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return None


def test_a_hanging_request_is_never_answered_and_harms_no_other(tmp_path_factory: pytest.TempPathFactory) -> None:
    faults = {"rate": 1.0, "kinds": ["hang"], "most_in_a_row": 1}
    with running(tmp_path_factory.mktemp("hang"), {"shop": [TASK]}, faults=faults) as server:
        with pytest.raises(TimeoutError):
            send(server, session_id(0), timeout_s=0.5)
        assert is_right(send(server, session_id(0)))


def test_a_server_that_crashed_and_came_back_gets_through_what_killed_it(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("crash")
    faults = {"rate": 1.0, "kinds": ["crash"]}
    crashes, trial = 0, 0
    for _ in range(40):
        with running(folder, {"shop": [TASK]}, faults=faults) as server:
            try:
                assert is_right(send(server, session_id(trial)))
            except (http.client.HTTPException, ConnectionError):
                assert server.process.wait(timeout=CEILING_S) in (0, 1, -signal.SIGKILL)
                crashes += 1
                continue
        if crashes:
            break
        trial += 1
    else:
        pytest.fail("it never crashed, or never came through")


@pytest.mark.parametrize(("variant", "status"), [(0.0, 0), (0.5, 1), (0.9, -signal.SIGKILL)])
def test_a_crash_ends_the_process_with_a_status_that_says_little(variant: float, status: int) -> None:
    code = "from tau2_fleet.simserver.faults import *; crash(Fault(FaultKind.crash, float(sys.argv[1])))"
    done = subprocess.run([sys.executable, "-c", f"import sys; {code}", str(variant)], cwd=ROOT, check=False)
    assert done.returncode == status


def test_the_rate_holds_and_no_request_fails_for_ever() -> None:
    faults = Faults(FaultSettings(rate=0.2, most_in_a_row=3), 1, "agent:1900")
    first = [faults.draw(session_of(trial), 1) for trial in range(5000)]
    assert 0.17 < sum(fault is not None for fault in first) / len(first) < 0.22
    always = Faults(FaultSettings(rate=1.0, kinds=[FaultKind.reset], most_in_a_row=3), 1, "agent:1900")
    drawn = [always.draw(session_of(0), 1) for _ in range(5)]
    assert [fault is not None for fault in drawn] == [True, True, True, False, False]
    assert always.draw(session_of(0), 3) is not None


def test_replicas_draw_apart_and_alike_for_the_same_seed() -> None:
    def draws(seed: int, replica: str) -> list[Fault | None]:
        faults = Faults(FaultSettings(rate=0.5, kinds=[FaultKind.reset, FaultKind.slow]), seed, replica)
        return [faults.draw(session_of(trial), 1) for trial in range(200)]

    assert draws(1, "agent:1900") == draws(1, "agent:1900")
    assert draws(1, "agent:1900") != draws(1, "agent:1901")
    assert draws(1, "agent:1900") != draws(2, "agent:1900")


def test_requests_outside_a_simulation_are_left_alone(server: RunningServer) -> None:
    for _ in range(20):
        assert server.request("POST", "/v1/chat/completions", {"messages": HELLO})[0] == 200


def test_gold_runs_reach_reward_1_through_all_faults(tmp_path_factory: pytest.TempPathFactory) -> None:
    chosen = {"mock": tasks_of("mock")[:2], "retail": tasks_of("retail")[3:4], "telecom": tasks_of("telecom")[::40]}
    refused = [kind for kind in OPTIONS.kinds if kind not in SPOILING and kind is not FaultKind.repeated]
    faults = {
        **as_json(OPTIONS),
        "kinds": refused,
        "rate": 0.4,
        "most_in_a_row": 3,
        "slow_s": 0.05,
        "gigantic_bytes": 1_000_000,
    }
    folder = tmp_path_factory.mktemp("chaos")
    failures: list[str] = []
    with (
        running(folder, chosen, "agent", faults=faults) as agent,
        running(folder, chosen, "user", faults=faults) as user,
    ):
        servers = {"agent": agent, "user": user}

        def ask(session: str, messages: list[dict[str, Any]], tools: list[dict[str, Any]]) -> dict[str, Any]:
            body = {"model": MODEL, "messages": messages, **({"tools": tools} if tools else {})}
            for _ in range(6):
                try:
                    status, content = servers[session.rsplit("/", 1)[1]].request(
                        "POST", "/v1/chat/completions", body, {"X-Session-ID": session}
                    )
                    message = usable(status, content)
                except (OSError, http.client.HTTPException, ValueError, TypeError, LookupError) as error:
                    failures.append(type(error).__name__)
                    continue
                return message
            pytest.fail("no retry got through")

        for domain, tasks in chosen.items():
            for task in tasks:
                assert Conversation(domain, task, ask, max_turns=300).run().reward == 1.0
    assert len(failures) > 20
    assert len(set(failures)) > 3


def usable(status: int, content: bytes) -> dict[str, Any]:
    """The message of an answer, as a strict client takes it; raises for anything else."""
    if status != 200:
        raise LookupError(status)
    message = json.loads(content)["choices"][0]["message"]
    text, calls = message["content"], message.get("tool_calls")
    if not (text is None or isinstance(text, str)) or not (calls is None or isinstance(calls, list)):
        raise TypeError("message")
    for call in calls or ():
        if not isinstance(call["function"]["name"], str) or not isinstance(call["function"]["arguments"], str):
            raise TypeError("call")
    if not calls and not (text or "").strip():
        raise LookupError("empty")
    if len(content) > 500_000:
        raise ValueError("gigantic")
    found: dict[str, Any] = message
    return found
