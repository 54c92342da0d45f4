"""What a simulated server is made of: requests out of bytes, faults, sessions, calls that fit a schema."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tau2_fleet.fleet.settings import FaultKind, FaultSettings
from tau2_fleet.simserver import http_request
from tau2_fleet.simserver.chance import chance
from tau2_fleet.simserver.customer import generic_user
from tau2_fleet.simserver.faults import Fault, Faults, conditions_of, refusal, spoilt
from tau2_fleet.simserver.http_request import HttpRequest, Malformed, RequestReader
from tau2_fleet.simserver.judge_side import verdict
from tau2_fleet.simserver.policy_words import (
    ScriptedCall,
    ScriptedTurn,
    Session,
    Situation,
    any_call,
    calls_of,
    equals,
    step_number,
    text_of,
)
from tau2_fleet.simserver.review_side import review
from tau2_fleet.simserver.scripts import Step


def read(*pieces: bytes) -> list[HttpRequest]:
    """The requests in some bytes that come in pieces."""
    reader, found = RequestReader(), []
    for piece in pieces:
        reader.feed(piece)
        while (request := reader.next()) is not None:
            found.append(request)
    return found


def test_requests_are_read_whole_in_whatever_pieces_they_come() -> None:
    sent = b"POST /v1/x?y=1 HTTP/1.1\r\nX-A:  b \r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.0\r\n\r\n"
    for pieces in ([sent], [sent[n : n + 1] for n in range(len(sent))]):
        first, second = read(*pieces)
        assert first == ("POST", "/v1/x", {b"x-a": b"b", b"content-length": b"3"}, b"abc", True)
        assert second == ("GET", "/", {}, b"", False)


@pytest.mark.parametrize(
    ("version", "connection", "kept"),
    [("1", "close", False), ("1", "Close", False), ("1", "x", True), ("0", "keep-alive", True), ("0", "x", False)],
)
def test_a_connection_is_kept_as_its_client_says(version: str, connection: str, kept: bool) -> None:
    [request] = read(f"GET / HTTP/1.{version}\r\nConnection: {connection}\r\n\r\n".encode())
    assert request.keep_alive is kept


def test_chunks_are_put_together_and_taken_out_as_they_come() -> None:
    head = b"POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n"
    [request] = read(head + b"3\r\nabc\r\n", b"A ;x=1\r\n0123456789\r\n0\r", b"\n\r\n")
    assert request.body == b"abc0123456789"
    reader = RequestReader()
    reader.feed(head + b"3\r\nabc\r\n4\r\nab")
    assert reader.next() is None
    assert (reader.waiting, reader.begun) == (5, True)


def test_what_a_client_waits_for_is_known_once() -> None:
    reader = RequestReader()
    assert (reader.begun, reader.wants_continue()) == (False, False)
    for _ in range(2):
        reader.feed(b"POST / HTTP/1.1\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\n")
        assert (reader.begun, reader.next()) == (True, None)
        assert (reader.wants_continue(), reader.wants_continue()) == (True, False)
        reader.feed(b"x")
        assert reader.next() is not None
        assert not reader.begun


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA b: c\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nAuthorization: 1\r\nAuthorization: 1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: 101\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\nContent-Length: 0000000000001\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", 400),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc", 400),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n65\r\n", 413),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 1024, 400),
        (b"x" * 200, 431),
    ],
)
def test_what_is_no_request_has_its_status(sent: bytes, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_request, "MAX_BODY_BYTES", 100)
    monkeypatch.setattr(http_request, "MAX_HEAD_BYTES", 200)
    with pytest.raises(Malformed) as caught:
        read(sent)
    assert caught.value.status == status


def test_what_is_just_small_enough_is_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_request, "MAX_BODY_BYTES", 100)
    monkeypatch.setattr(http_request, "MAX_HEAD_BYTES", 200)
    assert read(b"x" * 199) == []
    assert len(read(b"GET / HTTP/1.1\r\nContent-Length: 100\r\n\r\n" + b"x" * 100)) == 1
    chunked = b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert len(read(chunked + b"64\r\n" + b"x" * 100 + b"\r\n0\r\n\r\n")) == 1
    assert read(chunked + b"1" * 1023) == []


AGENT = Session("retail", "1", "0", "agent")


def test_faults_come_at_their_rate_and_stop_in_a_row() -> None:
    sure = Faults(FaultSettings(rate=1.0, kinds=[FaultKind.server_error], most_in_a_row=2), 1, "agent/0")
    assert [one and one.kind for one in (sure.draw(AGENT, 3) for _ in range(4))] == [FaultKind.server_error] * 2 + [
        None, None,
    ]  # fmt: skip
    assert sure.draw(AGENT, 5) is not None, "another request"
    assert Faults(FaultSettings(rate=0.0), 1, "agent/0").draw(AGENT, 3) is None
    often = Faults(FaultSettings(rate=0.25, kinds=[FaultKind.slow, FaultKind.hang]), 1, "agent/0")
    drawn = [often.draw(Session("retail", str(number), "0", "agent"), 3) for number in range(1000)]
    kinds = [one.kind for one in drawn if one is not None]
    assert 200 < len(kinds) < 300
    assert 0.15 < kinds.count(FaultKind.hang) / len(kinds) < 0.32, "three of thirteen"
    assert chance(1, "a", 2) == chance(1, "a", 2) != chance(2, "a", 2)
    assert 0 <= chance(1, "a") < 1


def test_a_refusal_has_its_status_and_one_of_three_bodies() -> None:
    options = FaultSettings(retry_after_s=7)
    assert refusal(Fault(FaultKind.slow, 0.0), options) is None
    found = refusal(Fault(FaultKind.retry_after, 0.0), options)
    assert found is not None
    assert (found[0], found[2]) == (429, ((b"Retry-After", b"7"),))
    assert json.loads(found[1])["error"]["code"] == 429
    bodies = [refusal(Fault(FaultKind.unavailable, variant), options) for variant in (0.34, 0.67)]
    assert [body and (body[0], body[1][:6], body[2]) for body in bodies] == [(503, b"<html>", ()), (503, b"", ())]


def test_a_spoilt_turn_is_told_by_what_is_wrong_with_it() -> None:
    turn = ScriptedTurn(calls=(ScriptedCall("1", "book", '{"a": 1}'), ScriptedCall("2", "book", '{"b": 1}')))
    made = [spoilt(turn, Fault(FaultKind.malformed_call, form / 6)) for form in range(6)]
    assert [one.calls[0].arguments for one in made] == [
        '{"', '{"a": 1,', '[{"a": 1}]', "null", "call it, please", '{"a": 1}',
    ]  # fmt: skip
    assert [one.calls[1].name for one in made] == ["book"] * 5 + ["book_now"]
    found = [conditions_of(turn, one, Fault(FaultKind.malformed_call, 0.0)) for one in made]
    assert found == [("arguments_malformed",)] * 3 + [("arguments_empty",), ("arguments_malformed",), ("tool_unknown",)]
    empty = Fault(FaultKind.empty, 0.0)
    assert (spoilt(turn, empty), conditions_of(turn, turn, empty)) == (ScriptedTurn(""), ("empty",))
    assert spoilt(turn, Fault(FaultKind.slow, 0.0)) is turn


def situation(*messages: dict[str, Any], **tools: Any) -> Situation:
    return Situation(AGENT, "agent", None, messages, tools)


def test_a_call_of_a_tool_has_the_least_that_its_schema_allows() -> None:
    properties = {
        "kind": {"enum": ["b", "a"]}, "any": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
        "all": {"type": "array"}, "on": {"type": "boolean"}, "none": {"type": "null"}, "odd": {"type": ["string"]},
        "inner": {"properties": {"n": {"type": "number"}}, "required": ["n"]}, "left": {"type": "string"},
    }  # fmt: skip
    schema = {"type": "object", "properties": properties, "required": [name for name in properties if name != "left"]}
    [call] = any_call(situation({}, {}, tool={"parameters": schema}), "tool").calls
    assert (call.id, call.name) == ("call-any-2", "tool")
    assert json.loads(call.arguments) == {
        "kind": "b", "any": 0, "all": [], "on": False, "none": None, "odd": "x", "inner": {"n": 0},
    }  # fmt: skip
    assert any_call(situation(), "unknown").calls[0].arguments == '"x"'


def test_calls_and_texts_are_found_in_messages_of_any_form() -> None:
    message = {"tool_calls": [{"id": 1, "function": {"name": "a", "arguments": "{}"}}, {}]}
    assert calls_of(message) == [("1", "a", "{}"), ("None", "None", "None")]
    assert calls_of({}) == []
    assert [text_of({"content": content}) for content in ("a", [{"text": "b"}, "c", {"text": None}], None)] == [
        "a", "b\n", "",
    ]  # fmt: skip
    assert [step_number(one) for one in ("call-3-9", "call-any-2", "call-3", "other-3-9")] == [3, 0, None, None]
    step = Step(1, False, "a", {"x": 1}, '{"x":1}')
    assert [equals(step, "a", text) for text in ('{"x":1}', '{ "x": 1 }', '{"x": 2}', "{")] == [
        True,
        True,
        False,
        False,
    ]
    assert not equals(step, "b", '{"x":1}')


def test_a_judge_and_a_reviewer_read_what_they_are_asked_about() -> None:
    asked = {"content": "expectedOutcomes: no list\nexpectedOutcomes: ['a', \"b\"]"}
    results = json.loads(verdict(situation(asked)))["results"]
    assert [(one["expectedOutcome"], one["metExpectation"]) for one in results] == [("a", True), ("b", True)]
    assert json.loads(verdict(situation())) == {"results": []}
    assert json.loads(verdict(situation({"content": "expectedOutcomes: {1}"}))) == {"results": []}

    def errors(*turns: tuple[str, str]) -> list[Any]:
        said = [{"turn": number, "by": by, "text": text} for number, (by, text) in enumerate(turns)]
        content = json.dumps({"case": "c", "simulation": {"conversation": said}})
        found: list[Any] = json.loads(review(situation({"content": content})))["errors"]
        return found

    asks, stop = ("agent", "Shall I? (yes/no)? "), ("customer", "x" * 200 + "###STOP###")
    [error] = errors(asks, stop)
    assert (error["turn"], error["kind"], len(error["quote"])) == (1, "early_stop", 100)
    assert errors(stop) == errors(asks, ("customer", "no")) == errors(("agent", "Bye."), stop) == []
    assert errors(("customer", asks[1]), stop) == errors(asks, ("agent", stop[1])) == []
    assert json.loads(review(situation({"content": "no json"}))) == {"case": "", "errors": []}
    assert json.loads(review(situation())) == {"case": "", "errors": []}


def test_the_customer_of_an_unknown_task_leaves_at_its_third_turn() -> None:
    own = {"role": "assistant"}
    texts = [generic_user(situation(*[own] * count)).text or "" for count in range(3)]
    assert ["###STOP###" in text for text in texts] == [False, False, True]
