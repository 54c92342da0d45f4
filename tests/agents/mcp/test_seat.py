"""The seat of an agent whose client acts: what has no place in a conversation is refused in words."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from tau2_fleet.agents.mcp.seat import SEND_MESSAGE, ActionResult, Seat
from tau2_fleet.llm.types import ChatMessage, ToolCallText
from tests.waiting import CEILING_S

DONE = ActionResult("done")


def in_loop(scene: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scene, CEILING_S))


async def begun(seat: Seat, name: str, **arguments: Any) -> asyncio.Task[ActionResult]:
    """A client that does this, and waits."""
    task = asyncio.create_task(seat.act(name, arguments))
    await asyncio.sleep(0)
    return task


def test_actions_are_taken_in_their_order_and_answered() -> None:
    async def scene() -> None:
        seat = Seat()
        assert not seat.begun
        early = await seat.act("find", {})
        assert (early.refused, early.text[:36]) == (True, "The customer has not spoken yet: cal")
        seat.begin()
        assert seat.begun
        first, second = await begun(seat, "find", a=1), await begun(seat, "find", a=2)
        taken = await seat.next_action()
        assert taken is not None
        assert (taken.name, taken.arguments, taken.is_message) == ("find", {"a": 1}, False)
        refused = await seat.act(SEND_MESSAGE, {"message": "Hi"})
        assert refused.text.startswith("Tools are at work")
        seat.answer(DONE)
        seat.answer(ActionResult("of nothing"))
        assert (await first, second.done()) == (DONE, False)
        await seat.next_action()
        seat.answer(DONE)
        await second
        for message in ("", " ", 3, None):
            assert (await seat.act(SEND_MESSAGE, {"message": message})).text.startswith("send_message takes one")
        speaking = await begun(seat, SEND_MESSAGE, message="Hi")
        assert (await seat.act("find", {})).text.startswith("It is the customer's turn")
        action = await seat.next_action()
        assert action is not None
        assert action.is_message
        assert (await seat.act("find", {})).text.startswith("It is the customer's turn")
        seat.answer(DONE)
        assert (await speaking).refused is False

    in_loop(scene())


def test_so_many_actions_wait_and_no_more() -> None:
    async def scene() -> None:
        seat = Seat()
        seat.begin()
        waiting = [await begun(seat, "find") for _ in range(32)]
        assert (await seat.act("find", {})).text == "32 calls wait for their answers: wait for those first."
        await seat.next_action()
        assert (await seat.act("find", {})).refused, "the one that was taken waits too"
        seat.end("It is over.")
        seat.end("Again.")
        answers = await asyncio.gather(*waiting)
        assert answers[0] == ActionResult("It is over.", over=True)
        assert set(answers[1:]) == {ActionResult("It is over. This call was not made.", refused=True, over=True)}
        late = await seat.act("find", {})
        assert late == ActionResult("It is over. Nothing can be done in it any more.", refused=True, over=True)

    in_loop(scene())


def test_a_client_that_leaves_is_waited_for_no_longer() -> None:
    async def scene() -> None:
        seat = Seat()
        seat.begin()
        waiting = asyncio.create_task(seat.next_action())
        await asyncio.sleep(0)
        seat.leave("the client has ended")
        assert await waiting is None
        assert seat.left == "the client has ended"
        last = await begun(seat, "find")
        assert await seat.next_action() is not None, "what it did before counts"
        last.cancel()
        seat.answer(DONE)

    in_loop(scene())


def test_the_conversation_is_told_as_the_agent_knows_it() -> None:
    async def scene() -> None:
        seat = Seat()
        reading = asyncio.create_task(seat.conversation())
        await asyncio.sleep(0)
        assert not reading.done()
        seat.heard += [
            ChatMessage("assistant", "Hi!"), ChatMessage("user", "Help."),
            ChatMessage("assistant", None, (ToolCallText("1", "find", "{}"), ToolCallText("2", "get", '{"a": 1}'))),
            ChatMessage("tool", "[]", tool_call_id="1"), ChatMessage("tool", "", tool_call_id="2"),
        ]  # fmt: skip
        seat.begin()
        told = (
            'you: Hi!\n\ncustomer: Help.\n\nyou called find({})\n\nyou called get({"a": 1})\n\nresult: []\n\nresult: '
        )
        assert await reading == told
        seat.end("It is over.")
        assert await seat.conversation() == f"{told}\n\n(It is over.)"

    in_loop(scene())
    over = Seat()
    over.over = "Ended."
    assert asyncio.run(over.conversation()) == "(Ended.)"
