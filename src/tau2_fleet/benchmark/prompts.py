"""The benchmark's own prompt texts, read from the installed package's source without importing it.

The texts stand in modules that import litellm. Their string constants and small text-making functions are found in
the source, compiled alone and evaluated here; the tests compare every result with the package's own objects.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from tau2_fleet.benchmark.package import DATA_DIR, AssistantMessage, Message, Task, UserScenario, source

_AGENT = "tau2.agent.llm_agent"
_USER = "tau2.user.user_simulator"
_USER_BASE = "tau2.user.base"
_ORCHESTRATOR = "tau2.orchestrator.orchestrator"
_JUDGE = "tau2.evaluator.evaluator_nl_assertions"
_JUDGE_FUNCTION = ("NLAssertionsEvaluator", "evaluate_nl_assertions")


@lru_cache(maxsize=16)
def agent_system_prompt(policy: str, instructions: str | None = None) -> str:
    """What the agent is told: its instructions (None: the benchmark's) and the domain's policy."""
    if instructions is None:
        instructions = _text(_AGENT, "AGENT_INSTRUCTION")
    return _text(_AGENT, "SYSTEM_PROMPT").format(agent_instruction=instructions, domain_policy=policy)


def ground_truth_system_prompt(policy: str, task: Task, instructions: str | None = None) -> str:
    """The agent's prompt with the gold actions of the task as steps to take.

    Raises:
        ValueError: the task has no gold actions.
    """
    actions = task.evaluation_criteria.actions if task.evaluation_criteria is not None else None
    if not actions:
        raise ValueError(f"task {task.id} has no gold actions")
    return _text(_AGENT, "SYSTEM_PROMPT_GT").format(
        agent_instruction=_text(_AGENT, "AGENT_GT_INSTRUCTION") if instructions is None else instructions,
        domain_policy=policy,
        resolution_steps=_resolution_steps()(_GroundTruth(task)),
    )


def solo_system_prompt(policy: str, task: Task, instructions: str | None = None) -> str:
    """The prompt of an agent that works alone, from the task's ticket."""
    if instructions is None:
        names = _solo_names()
        instructions = _text(_AGENT, "AGENT_SOLO_INSTRUCTION").format(
            stop_function_name=names["STOP_FUNCTION_NAME"], stop_token=names["STOP_TOKEN"]
        )
    return _text(_AGENT, "SYSTEM_PROMPT_SOLO").format(
        agent_instruction=instructions, domain_policy=policy, ticket=task.ticket
    )


def done_tool_schema() -> dict[str, Any]:
    """The OpenAI schema of the tool by which a solo agent ends its work."""
    from tau2.environment.tool import as_tool

    function = _function(_AGENT, ("LLMSoloAgent", "add_stop_tool", "done"))
    schema: dict[str, Any] = as_tool(function).openai_schema
    return schema


def solo_stop() -> tuple[str, str]:
    """Name of the tool that ends a solo agent's work, and the text its last message then has."""
    names = _solo_names()
    return names["STOP_FUNCTION_NAME"], names["STOP_TOKEN"]


def user_system_prompt(scenario: UserScenario | str, with_tools: bool, guidelines: str | None = None) -> str:
    """What the simulated user is told: how to behave (None: the benchmark's guidelines), and the task's scenario."""
    if guidelines is None:
        guidelines = user_guidelines(with_tools)
    return _text(_USER, "SYSTEM_PROMPT").format(global_user_sim_guidelines=guidelines, instructions=str(scenario))


@cache
def user_guidelines(with_tools: bool) -> str:
    """How a simulated user behaves; there is a variant for domains in which it has tools."""
    name = "simulation_guidelines_tools.md" if with_tools else "simulation_guidelines.md"
    return Path(DATA_DIR, "tau2", "user_simulator", name).read_text(encoding="utf-8")


@cache
def greeting() -> str:
    """The agent's first message of every conversation."""
    call = _assigned(_ORCHESTRATOR, ("DEFAULT_FIRST_AGENT_MESSAGE",))
    message: AssistantMessage = eval(_compiled(call), {"AssistantMessage": AssistantMessage})
    return message.content or ""


def judge_transcript(messages: Sequence[Message]) -> str:
    """A trajectory as the judge reads it."""
    expression = _assigned(_JUDGE, (*_JUDGE_FUNCTION, "trajectory_str"))
    return str(eval(_compiled(expression), {}, {"trajectory": messages}))


def judge_messages(transcript: str, assertions: Sequence[str]) -> tuple[str, str]:
    """System and user prompt for the judge of natural-language assertions; `transcript` as above."""
    names = {"trajectory_str": transcript, "nl_assertions": list(assertions)}
    system, user = (
        str(eval(_compiled(_assigned(_JUDGE, (*_JUDGE_FUNCTION, name))), {}, names))
        for name in ("system_prompt", "user_prompt")
    )
    return system, user


def digests() -> dict[str, str]:
    """SHA-256 of each official text, for `summary.json`."""
    texts = {
        "agent": agent_system_prompt(""),
        "ground_truth": _text(_AGENT, "SYSTEM_PROMPT_GT") + _text(_AGENT, "AGENT_GT_INSTRUCTION"),
        "solo": _text(_AGENT, "SYSTEM_PROMPT_SOLO") + _text(_AGENT, "AGENT_SOLO_INSTRUCTION"),
        "user": user_system_prompt("", with_tools=False),
        "user_with_tools": user_system_prompt("", with_tools=True),
        "judge": "".join(judge_messages("", [])),
        "greeting": greeting(),
    }
    return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}


class _GroundTruth:
    """As much of the package's ground-truth agent as its own functions use."""

    provide_function_args = True

    def __init__(self, task: Task) -> None:
        self.task = task

    def make_agent_instructions_from_action(self, action: Any, include_function_args: bool = False) -> str:
        """One step, by the package's function of this name."""
        step = _function(_AGENT, ("LLMGTAgent", "make_agent_instructions_from_action"))
        return str(step(type(self), action, include_function_args))


@cache
def _resolution_steps() -> Any:
    return _function(_AGENT, ("LLMGTAgent", "make_agent_instructions_from_actions"))


@cache
def _solo_names() -> dict[str, str]:
    return {
        name: ast.literal_eval(_assigned(_AGENT, ("LLMSoloAgent", name)))
        for name in ("STOP_FUNCTION_NAME", "STOP_TOKEN")
    }


@cache
def _module(name: str) -> ast.Module:
    return ast.parse(source(name).read_text(encoding="utf-8"))


@cache
def _text(module: str, name: str) -> str:
    """A string constant of a module, `.strip()` and the like applied."""
    return str(eval(_compiled(_assigned(module, (name,))), {}))


def _assigned(module: str, path: tuple[str, ...]) -> ast.expr:
    """The expression assigned to a name in a module, or in a class or function of it."""
    *parents, name = path
    for node in _body(module, tuple(parents)):
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
            return node.value
    raise LookupError(f"{module} has no {'.'.join(path)}: is this another version of the benchmark's package?")


@cache
def _function(module: str, path: tuple[str, ...]) -> Any:
    """A function of a class, compiled alone, without its decorators and annotations."""
    *parents, name = path
    for node in _body(module, tuple(parents)):
        if isinstance(node, ast.FunctionDef) and node.name == name:
            plain = ast.parse(ast.unparse(node)).body[0]
            assert isinstance(plain, ast.FunctionDef)
            plain.decorator_list = []
            for argument in plain.args.args:
                argument.annotation = None
            names: dict[str, Any] = {}
            exec(compile(ast.Module([plain], []), str(source(module)), "exec"), names)
            return names[name]
    raise LookupError(f"{module} has no {'.'.join(path)}: is this another version of the benchmark's package?")


def _body(module: str, path: tuple[str, ...]) -> list[ast.stmt]:
    body: list[ast.stmt] = _module(module).body
    for name in path:
        body = next(
            (node.body for node in body if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name), []
        )
    return body


def _compiled(expression: ast.expr) -> Any:
    return compile(ast.Expression(expression), "<tau2>", "eval")


STOP_TOKENS: tuple[str, ...] = tuple(_text(_USER_BASE, name) for name in ("STOP", "TRANSFER", "OUT_OF_SCOPE"))
"""Any of these in a text of the user ends the conversation."""
