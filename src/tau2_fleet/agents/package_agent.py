"""Agents written for the tau2 package, from its registry or by import path: `agent/scaffold=tau2`.

Synchronous ones run in a thread of their own per turn. What they ask through litellm, as the package does, goes
through this run's model session: same servers, limits, seeds, record. Of models that they reach in other ways, calls,
tokens and cost are not known; such turns are marked `unseen_calls`.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from tau2_fleet.benchmark.package import AssistantMessage, MultiToolMessage
from tau2_fleet.errors import UserError
from tau2_fleet.record.line import UNSEEN_CALLS

if TYPE_CHECKING:
    from tau2_fleet.agents.agent import AgentContext, AgentInput

log = logging.getLogger(__name__)

_KEY = "agent.scaffold.factory"


class PackageAgent:
    """One agent of the package's kind, behind this program's protocol."""

    may_ask_elsewhere = True

    def __init__(
        self,
        context: AgentContext,
        factory: str | None = None,
        modules: Sequence[str] = (),
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """
        Args:
            factory: a name in the package's registry, or the import path of a class or function.
            modules: to be imported first, because they register agents.
            options: further arguments for it.

        Raises:
            UserError: there is no such agent.
        """
        from tau2_fleet.agents.litellm_door import open_line

        make = _constructor(factory, modules)
        self.name = str(factory)
        self._role = context.model.role
        self._line = open_line(context.model)
        given = {
            "tools": _tools(context.tools, without="done" if context.mode == "solo" else None),
            "domain_policy": context.policy,
            "llm": self._line.model,
            "llm_args": {},
            "task": context.task,
        }
        self._agent = make(**_accepted(make, given), **(options or {}))
        self._agent.set_seed(context.seed)
        self._state = self._agent.get_init_state(
            message_history=[message.model_copy(deep=True) for message in context.messages if _known_to_agent(message)]
        )

    async def next_message(self, incoming: AgentInput) -> AssistantMessage:
        """The agent's turn, with what it cost where that is known."""
        message: Any = incoming
        if isinstance(incoming, list):
            several = len(incoming) > 1
            message = MultiToolMessage(role="tool", tool_messages=incoming) if several else next(iter(incoming), None)
        line = self._line
        line.take_cost()
        line.failure = None
        speak = self._agent.generate_next_message
        try:
            if inspect.iscoroutinefunction(speak):
                turn, self._state = await speak(message, self._state)
            else:
                turn, self._state = await _in_thread(partial(speak, message, self._state))
        except Exception as error:
            if line.failure is not None:
                raise line.failure from error
            raise
        about: dict[str, Any] = {"author": self._role}
        cost = line.take_cost()
        if cost is None:
            about[UNSEEN_CALLS] = True
            return _changed(turn, raw_data=about)
        return _changed(turn, raw_data=about, cost=cost.cost_usd, usage=cost.usage_dict())


def _changed(turn: Any, **fields: Any) -> Any:
    """The turn with these fields; what is no turn is told by whoever asked for one."""
    return turn.model_copy(update=fields) if isinstance(turn, AssistantMessage) else turn


def _constructor(factory: str | None, modules: Sequence[str]) -> Callable[..., Any]:
    if not factory:
        raise UserError(f"{_KEY} is not set: name an agent of the tau2 package's registry, or an import path")
    try:
        registry = _registry()
        for module in modules:
            import_module(module)
        if "." in factory:
            module, _, attribute = factory.rpartition(".")
            found: Callable[..., Any] = getattr(import_module(module), attribute)
            return found
    except (Exception, SystemExit) as error:
        raise UserError(f"{_KEY}={factory}: {type(error).__name__}: {' '.join(str(error).split())[:300]}") from error
    factories = getattr(registry, "_agent_factories", {})  # of later versions, beside the classes
    known = {**registry._agents, **factories}
    if factory not in known:
        raise UserError(
            f"{_KEY}={factory}: the registry has {', '.join(known)}; modules that register others are named in "
            "agent.scaffold.modules"
        )
    return known[factory]  # type: ignore[no-any-return]


def _registry() -> Any:
    """The package's registry; its import changes a setting of litellm's for the whole process, which is put back."""
    import litellm

    before = litellm.drop_params
    try:
        from tau2.registry import registry
    finally:
        litellm.drop_params = before
    return registry


def _accepted(make: Callable[..., Any], arguments: dict[str, Any]) -> dict[str, Any]:
    """Those arguments that it takes."""
    parameters = inspect.signature(make).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return arguments
    names = {parameter.name for parameter in parameters}
    return {name: value for name, value in arguments.items() if name in names}


@cache
def _offered_tool() -> Any:
    """A tool as the package's agents expect it: it can be offered, and is called by nobody but the environment."""
    from tau2.environment.tool import BaseTool

    class Offered(BaseTool):  # type: ignore[misc]
        offered: dict[str, Any]

        @property
        def openai_schema(self) -> dict[str, Any]:
            return self.offered

        def _call(self, *arguments: Any, **named: Any) -> Any:
            raise RuntimeError(f"{self.name}: an agent calls its tools by messages")

    return Offered


def _tools(schemas: Sequence[dict[str, Any]], without: str | None) -> list[Any]:
    """The tools of these schemas but the one of this name."""
    names = {schema["function"]["name"]: schema for schema in schemas}
    return [_offered_tool()(name=name, offered=schema) for name, schema in names.items() if name != without]


def _known_to_agent(message: Any) -> bool:
    """Whether the agent has seen a message: not the customer's calls and their results."""
    if message.role == "tool":
        return bool(message.requestor == "assistant")
    return message.role == "assistant" or not message.is_tool_call()


async def _in_thread(work: Callable[[], Any]) -> Any:
    """What `work` returns or raises, from a thread of its own: one that hangs must not keep the process from ending."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Any] = loop.create_future()
    context = contextvars.copy_context()

    def settle(result: Any, error: BaseException | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(result)
        else:
            done.set_exception(error)

    def run() -> None:
        result, failure = None, None
        try:
            result = context.run(work)
        except BaseException as error:
            # An asyncio future takes neither of these two as they are.
            odd = isinstance(error, StopIteration | SystemExit | KeyboardInterrupt)
            failure = RuntimeError(f"{type(error).__name__}: {error}") if odd else error
        try:
            loop.call_soon_threadsafe(settle, result, failure)
        except RuntimeError:
            log.debug("an agent's turn ended after its run")

    threading.Thread(target=run, name="an agent's turn", daemon=True).start()
    return await done
