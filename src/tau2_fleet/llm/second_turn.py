"""Two turns with a remote model before a run: some servers answer every first one, and refuse what follows it.

`llm.preflight` asks; what a pool does with a second turn is looked at by `fleet.pool_check`.
"""

from __future__ import annotations

from tau2_fleet.llm.types import ChatMessage, ChatModel, ChatRequest, ModelError, ToolSet

_TOOLS = ToolSet.of(
    [
        {
            "type": "function",
            "function": {
                "name": "get_weather",
                "description": "The weather in a city now.",
                "parameters": {
                    "type": "object",
                    "properties": {"city": {"type": "string", "description": "Name of the city"}},
                    "required": ["city"],
                },
            },
        }
    ]
)
_SESSION = "preflight"


async def try_two_turns(model: ChatModel, *, with_tools: bool) -> None:
    """Ask for something that a tool can tell and give its result back; without tools ask two questions.

    Raises:
        ModelError: the model could not be asked, or refuses the second turn.
    """
    tools = _TOOLS if with_tools else None
    question = "What is the weather in Paris? Look it up." if with_tools else "Answer with the one word: ready"
    history = [ChatMessage("user", question)]
    reply = await model.complete(ChatRequest(tuple(history), _SESSION, tools))
    if reply.empty:
        return  # all of its few tokens went into thinking
    history.append(ChatMessage("assistant", reply.text, reply.tool_calls))
    if reply.tool_calls:
        history += [ChatMessage("tool", "18 degrees, sunny", tool_call_id=call.id) for call in reply.tool_calls]
    else:
        history.append(ChatMessage("user", "Once more, please."))
    try:
        await model.complete(ChatRequest(tuple(history), _SESSION, tools))
    except ModelError as error:
        told = str(error).removeprefix(f"{model.name}: ")
        raise type(error)(f"it refuses the second turn of a conversation: {told}", error.stats) from error
