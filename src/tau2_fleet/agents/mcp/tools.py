"""What one seat offers by MCP: the domain's tools and two of our own, policy and conversation. `agent.py` makes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tau2_fleet.agents.mcp.seat import READ_CONVERSATION, SEND_MESSAGE, ActionResult, Seat
from tau2_fleet.errors import UserError

POLICY_URI = "tau2://policy"
CONVERSATION_URI = "tau2://conversation"
PROMPT = "policy"
USAGE_META = "tau2-fleet/usage"
"""Where in `_meta` of a tool call a client may report what its own models took."""

_READ = {
    "name": READ_CONVERSATION,
    "description": "The conversation so far. Call it before anything else; it changes nothing.",
    "inputSchema": {"type": "object", "properties": {}},
    "annotations": {"readOnlyHint": True},
}
_SEND = {
    "name": SEND_MESSAGE,
    "description": (
        "Say something to the customer; the result is what the customer answers, or that the conversation is over. "
        "This is the only way to reach the customer."
    ),
    "inputSchema": {
        "type": "object",
        "properties": {"message": {"type": "string", "description": "What the customer is to read."}},
        "required": ["message"],
    },
    "outputSchema": {
        "type": "object",
        "properties": {"answer": {"type": ["string", "null"]}, "over": {"type": "boolean"}},
        "required": ["answer", "over"],
    },
}
_HOW = f"""
How you take part: what you write as text is read by nobody. You act by calling tools, one after another.
- `{READ_CONVERSATION}` tells the conversation so far; call it first.
- `{SEND_MESSAGE}` says something to the customer and waits for the answer.
- All other tools are those that your instructions speak of.
Go on until an answer says that the conversation is over; then stop."""
_HOW_SOLO = """
How you take part: what you write as text is read by nobody. You act by calling tools, one after another. There is no
customer to talk to. When all is done call `done`; then stop."""


class SeatTools:
    """The offer of one seat."""

    def __init__(
        self,
        seat: Seat,
        schemas: Sequence[dict[str, Any]],
        policy: str,
        system: str,
        *,
        solo: bool,
        report: Callable[[Any], str | None],
    ) -> None:
        """
        Args:
            schemas: of the domain's tools, in OpenAI's form.
            policy: the domain's policy alone.
            system: what the default agent's model reads: instructions and policy.
            report: takes a client's report of its models' use, and says what is wrong with it.

        Raises:
            UserError: a tool of the domain is named like one of ours.
        """
        self._seat = seat
        own = [_READ] if solo else [_READ, _SEND]
        names = {schema["function"]["name"] for schema in schemas}
        if taken := sorted(names & {str(tool["name"]) for tool in own}):
            raise UserError(f"agent/scaffold=mcp: the domain has a tool {taken[0]} too; it is to have another name")
        self._tools = [*map(_tool, schemas), *own]
        self._policy = policy
        self._report = report
        self.instructions = system + "\n" + (_HOW_SOLO if solo else _HOW)
        """Instructions and policy, and how to take part."""

    async def briefing(self) -> str:
        """All that a client needs to begin: the instructions, and the conversation so far."""
        return f"{self.instructions}\n\nThe conversation so far:\n\n{await self._seat.conversation()}\n"

    def tools(self) -> list[dict[str, Any]]:
        return self._tools

    async def call_tool(self, name: str, arguments: dict[str, Any], meta: dict[str, Any]) -> dict[str, Any]:
        if USAGE_META in meta and (problem := self._report(meta[USAGE_META])) is not None:
            return _result(ActionResult(f"_meta {USAGE_META}: {problem}", refused=True), speaking=False)
        if name == READ_CONVERSATION:
            told = _result(ActionResult(await self._seat.conversation()), speaking=False)
            return told | {"structuredContent": self._conversation()}
        return _result(await self._seat.act(name, arguments), speaking=name == SEND_MESSAGE)

    def _conversation(self) -> dict[str, Any]:
        """The conversation for programs: messages in OpenAI's form."""
        return {"messages": [message.as_dict() for message in self._seat.heard], "over": bool(self._seat.over)}

    def resources(self) -> list[dict[str, Any]]:
        kind = {"mimeType": "text/plain"}
        return [
            {"uri": POLICY_URI, "name": "policy", "description": "The policy that the agent is to follow.", **kind},
            {"uri": CONVERSATION_URI, "name": "conversation", "description": "The conversation so far.", **kind},
        ]

    async def read_resource(self, uri: str) -> list[dict[str, Any]] | None:
        if uri == POLICY_URI:
            text = self._policy
        elif uri == CONVERSATION_URI:
            text = await self._seat.conversation()
        else:
            return None
        return [{"uri": uri, "mimeType": "text/plain", "text": text}]

    def prompts(self) -> list[dict[str, Any]]:
        return [{"name": PROMPT, "description": "Instructions and policy, how to take part, the conversation so far."}]

    async def get_prompt(self, name: str) -> dict[str, Any] | None:
        if name != PROMPT:
            return None
        return {"messages": [{"role": "user", "content": {"type": "text", "text": await self.briefing()}}]}


def _tool(schema: dict[str, Any]) -> dict[str, Any]:
    """A tool of the domain as MCP offers it."""
    function = schema["function"]
    parameters = function.get("parameters") or {"type": "object", "properties": {}}
    return {
        "name": function["name"],
        "description": function.get("description") or "",
        "inputSchema": {"type": "object", **parameters},
    }


def _result(answer: ActionResult, *, speaking: bool) -> dict[str, Any]:
    result: dict[str, Any] = {"content": [{"type": "text", "text": answer.text}], "isError": answer.refused}
    if speaking and not (answer.refused and not answer.over):
        result["structuredContent"] = {"answer": None if answer.over else answer.text, "over": answer.over}
    return result
