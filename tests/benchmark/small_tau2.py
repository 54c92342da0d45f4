"""A tau2 of our own, small, in the form that the benchmark's package has: one domain, `lamps`, and a registry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FILES = {
    "__init__.py": "",
    "data_model/__init__.py": "",
    "data_model/message.py": '''
from pydantic import BaseModel

class ToolCall(BaseModel):
    id: str = ""
    name: str
    arguments: dict
    requestor: str = "assistant"

class ToolMessage(BaseModel):
    id: str
    content: str | None = None
    requestor: str
    error: bool = False
''',
    "data_model/tasks.py": '''
from typing import Any
from pydantic import BaseModel

class Action(BaseModel):
    action_id: str
    requestor: str = "assistant"
    name: str
    arguments: dict
    info: str | None = None
    compare_args: list[str] | None = None

class EnvAssertion(BaseModel):
    env_type: str
    func_name: str
    arguments: dict
    assert_value: bool = True
    message: str | None = None

class Criteria(BaseModel):
    actions: list[Action] | None = None
    env_assertions: list[EnvAssertion] | None = None
    communicate_info: list[str] | None = None
    nl_assertions: list[str] | None = None
    reward_basis: list[str] = ["DB", "COMMUNICATE"]

class Start(BaseModel):
    initialization_data: Any = None
    initialization_actions: list[Any] | None = None
    message_history: list[Any] | None = None

class Task(BaseModel):
    id: str
    description: Any = None
    user_scenario: Any
    ticket: str | None = None
    initial_state: Start | None = None
    evaluation_criteria: Criteria | None = None
    user_tools: list[str] | None = None
    mood: str = "calm"
''',
    "environment/__init__.py": "",
    "environment/environment.py": '''
import hashlib, json
from tau2.data_model.message import ToolMessage

class Tool:
    def __init__(self, name, about, parameters):
        self.name = name
        self.openai_schema = {"type": "function", "function": {"name": name, "description": about, "parameters": {
            "type": "object", "properties": {key: {"type": "string"} for key in parameters}, "required": parameters}}}

class Kind(str):
    value = property(str)

class Toolkit:
    def __init__(self, db, tools):
        self.db, self._about = db, tools
    @property
    def tools(self):
        return {name: getattr(self, name) for name in self._about}
    def has_tool(self, name):
        return name in self._about
    def tool_type(self, name):
        return Kind(self._about[name][0])
    def get_tools(self):
        return {name: Tool(name, self._about[name][1], self._about[name][2]) for name in self._about}
    def get_db_hash(self):
        return hashlib.sha256(json.dumps(self.db.model_dump(), sort_keys=True).encode()).hexdigest()

class Environment:
    def __init__(self, policy, tools, user_tools=None, solo_mode=False):
        self.policy, self.tools, self.user_tools, self.solo_mode = policy, tools, user_tools, solo_mode
    def get_policy(self):
        return self.policy
    def get_tools(self):
        return list(self.tools.get_tools().values())
    def get_user_tools(self):
        return list(self.user_tools.get_tools().values())
    def sync_tools(self):
        self.user_tools.seen = sum(self.tools.db.lamps.values())
    def get_db_hash(self):
        return self.tools.get_db_hash()
    def get_user_db_hash(self):
        return self.user_tools.get_db_hash()
    def make_tool_call(self, tool_name, requestor="assistant", **arguments):
        kit = self.user_tools if requestor == "user" else self.tools
        if not kit.has_tool(tool_name):
            raise ValueError(f"Tool '{tool_name}' not found.")
        return kit.tools[tool_name](**arguments)
    def get_response(self, call):
        error = False
        try:
            text = self.make_tool_call(call.name, requestor=call.requestor, **call.arguments)
            self.sync_tools()
        except Exception as problem:
            text, error = f"Error: {problem}", True
        return ToolMessage(id=call.id, content=text, requestor=call.requestor, error=error)
    def set_state(self, initialization_data, initialization_actions, message_history):
        for name, on in ((initialization_data or {}).get("agent_data") or {}).items():
            self.tools.db.lamps[name] = on
        self.sync_tools()
    def run_env_assertion(self, assertion, raise_assertion_error=True):
        return getattr(self.user_tools, assertion.func_name)(**assertion.arguments) == assertion.assert_value
''',
    "lamps.py": '''
import os, sys, time
from pydantic import BaseModel
from tau2.data_model.tasks import Task
from tau2.environment.environment import Environment, Toolkit

class House(BaseModel):
    lamps: dict[str, bool]

class Eyes(BaseModel):
    open: bool = True

class LampTools(Toolkit):
    def switch(self, lamp, on="yes"):
        if lamp not in self.db.lamps:
            raise ValueError(f"no lamp {lamp}")
        self.db.lamps[lamp] = on == "yes"
        return "done"
    def look(self, lamp):
        print("looking at", lamp)
        return f"{lamp} is {'on' if self.db.lamps[lamp] else 'off'}"
    def calculate(self, expression):
        return str(eval(expression))
    def misbehave(self, how):
        if how == "die":
            os._exit(3)
        if how == "hang":
            time.sleep(3600)
        if how == "nonsense":
            for number in range(3, 64):
                try:
                    os.write(number, b"this is no answer\\n")
                except OSError:
                    pass
            time.sleep(3600)
        if how == "exit":
            sys.exit(1)
        if how == "environment":
            return " ".join(sorted(os.environ))
        return str(os.getpid())

class Sight(Toolkit):
    def count(self):
        return str(self.seen)
    def bright(self, least):
        return self.seen >= int(least)

ABOUT = {
    "switch": ("write", "Switch a lamp.", ["lamp"]),
    "look": ("read", "Look at a lamp.", ["lamp"]),
    "calculate": ("generic", "Calculate.", ["expression"]),
    "misbehave": ("generic", "Do harm.", ["how"]),
}

def get_environment(solo_mode=False, brightness="plain"):
    if brightness == "blinding":
        raise RuntimeError("no key for so much light")
    house = House(lamps={"hall": False, "attic": False})
    return Environment(f"Be brief. The light is {brightness}.", LampTools(house, ABOUT),
        Sight(Eyes(), {"count": ("read", "Count lamps.", [])}), solo_mode)

def task(number, lamp, **more):
    return Task(id=number, user_scenario={"instructions": f"Have the lamp in the {lamp} switched on."},
        evaluation_criteria={"actions": [{"action_id": "1", "name": "switch", "arguments": {"lamp": lamp}}],
            "env_assertions": [{"env_type": "user", "func_name": "bright", "arguments": {"least": "1"}}],
            "reward_basis": ["DB", "ENV_ASSERTION"]}, **more)

def get_tasks(task_split_name=None):
    if task_split_name == "broken":
        raise KeyError(task_split_name)
    tasks = [task("hall", "hall"), task("attic", "attic", user_tools=[], mood="cross")]
    return [one for one in tasks if task_split_name in (None, "base") or one.id == "hall"]

def get_splits():
    return {"base": ["hall", "attic"], "short": ["hall"]}
''',
    "registry.py": '''
print("welcome to the small registry")
from tau2 import lamps

class Registry:
    def get_domains(self):
        return ["lamps"]
    def get_task_sets(self):
        return ["lamps"]
    def get_env_constructor(self, name):
        return lamps.get_environment
    def get_tasks_loader(self, name):
        return lamps.get_tasks
    def get_task_splits_loader(self, name):
        return lamps.get_splits

registry = Registry()
''',
}  # fmt: skip


def write_small_tau2(folder: Path, **changed: str) -> Path:
    """The package in a folder like a checkout's; `changed`: texts to put before modules, by their names."""
    for name, text in FILES.items():
        path = folder / "src" / "tau2" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(changed.get(path.stem, "") + text.lstrip("\n"), encoding="utf-8")
    (folder / "pyproject.toml").write_text('[project]\nname = "tau2"\nversion = "7.1"\n', encoding="utf-8")
    return folder


def call(name: str, requestor: str = "assistant", **arguments: Any) -> dict[str, Any]:
    """A tool call as it is sent to the process."""
    return {"id": "1", "name": name, "arguments": arguments, "requestor": requestor}


def as_json(value: Any) -> Any:
    """The value as it comes back from a file."""
    return json.loads(json.dumps(value))
