"""Domains that are folders of somebody's own: read, played, compared and kept apart like the benchmark's."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tau2_fleet.benchmark.domains import load_domain
from tau2_fleet.benchmark.package import ToolCall, ToolMessage
from tau2_fleet.errors import UserError
from tests.examples import write_examples

USER_TOOLS = '''
from tau2.environment.db import DB
from tau2.environment.environment import Environment
from tau2.environment.toolkit import ToolKitBase, ToolType, is_tool
from .tools import Book

class Shelf(DB):
    shelf: list[Book] = []
    reminded: int = 0

class MemberTools(ToolKitBase):
    db: Shelf
    @is_tool(ToolType.WRITE)
    def put_away(self, title: str) -> str:
        """Put a book on the shelf."""
        self.db.shelf.append(Book(title=title, renewals=0))
        return "done"

class LibraryEnvironment(Environment):
    def sync_tools(self):
        self.user_tools.db.reminded = sum(book.renewals for book in self.tools.db.books.values())
'''


@pytest.fixture
def library(tmp_path: Path) -> Path:
    write_examples(tmp_path)
    return tmp_path / "library"


def call(name: str, requestor: str = "assistant", **arguments: Any) -> ToolCall:
    return ToolCall(id="1", name=name, arguments=arguments, requestor=requestor)


def test_its_tasks_tools_and_policy_are_those_of_the_folder(library: Path) -> None:
    domain = load_domain("library", path=library)
    assert [task.id for task in domain.tasks()] == ["renew_emma", "look_before"]
    assert domain.policy.startswith("# Library")
    assert [schema["function"]["name"] for schema in domain.agent_tools] == ["look_up", "renew"]
    assert (domain.user_tools, domain.supports_solo) == ([], False)
    assert {"policy", "tools", "db.json", "tasks.json", "tools.py"} <= domain.digests.keys()
    assert load_domain("library", path=library) is domain


def test_simulations_share_nothing_however_its_tools_write(library: Path) -> None:
    """`renew` changes what it finds in `values()`, which the benchmark's own domains may not."""
    domain = load_domain("library", path=library)
    task = domain.tasks()[0]

    async def play(*titles: str) -> tuple[list[ToolMessage], Any]:
        environment = domain.environment(task)
        answers = [await environment.respond(call("renew", title=title)) for title in titles]
        return answers, await environment.final_state()

    for _ in range(2):
        answers, state = asyncio.run(play("Emma", "Ulysses"))
        assert [answer.content for answer in answers] == ["Emma is renewed", "Error: it was renewed before"]
        assert (state.db_match, state.differences) == (True, ())
    _, untouched = asyncio.run(play())
    assert not untouched.db_match
    [difference] = untouched.differences
    assert (difference.table, difference.field, difference.expected) == ("books", "Emma.renewals", "1")


def test_customers_with_tools_have_a_database_and_are_synced(library: Path) -> None:
    (library / "user_tools.py").write_text(USER_TOOLS)
    (library / "user_db.json").write_text('{"shelf": []}')
    domain = load_domain("library", path=library)
    assert [schema["function"]["name"] for schema in domain.user_tools] == ["put_away"]

    async def play() -> Any:
        environment = domain.environment(domain.tasks()[0])
        await environment.respond(call("put_away", "user", title="Emma"))
        await environment.respond(call("renew", title="Emma"))
        return environment.package_environment.user_tools.db

    for _ in range(2):
        database = asyncio.run(play())
        assert ([book.title for book in database.shelf], database.reminded) == (["Emma"], 2)


def test_its_own_calculator_is_left_alone(library: Path) -> None:
    tools = (library / "tools.py").read_text()
    own = '    @is_tool(ToolType.READ)\n    def calculate(self, expression: str) -> str:\n        """Count."""\n'
    (library / "tools.py").write_text(f"{tools}\n{own}        return expression.upper()\n")
    domain = load_domain("library", path=library)
    answer = asyncio.run(domain.environment(domain.tasks()[0]).respond(call("calculate", expression="2 ** a")))
    assert answer.content == "2 ** A"


def _without(name: str) -> Any:
    return lambda folder: (folder / name).unlink()


def _with(name: str, text: str) -> Any:
    return lambda folder: (folder / name).write_text(text)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (_without("policy.md"), "policy.md missing"),
        (_without("db.json"), "db.json or db.toml missing"),
        (_without("tools.py"), "tools.py missing"),
        (_without("tasks.json"), "tasks.json missing"),
        (
            _with("tools.py", "import json\nraise RuntimeError('no\\nluck')"),
            "RuntimeError: no luck, line 2 of tools.py",
        ),
        (_with("tools.py", "import nowhere_at_all"), "ModuleNotFoundError: No module named 'nowhere_at_all', line 1"),
        (_with("tools.py", "def f(:"), "SyntaxError: "),
        (_with("tools.py", "from tau2.environment.toolkit import ToolKitBase"), "must have one class of tau2's"),
        (
            _with("tools.py", "from tau2.environment.toolkit import ToolKitBase\nclass T(ToolKitBase): pass"),
            "T must say the class of its database",
        ),
        (_with("db.json", "{"), "db.json: JSONDecodeError"),
        (_with("db.json", '{"books": {"Emma": 3}}'), "db.json: ValidationError: 1 validation error for LibraryDB"),
        (_with("user_tools.py", USER_TOOLS), "user_tools.py is there, user_db.json or user_db.toml is missing"),
        (_with("tasks.json", "[3]"), "tasks.json: not a list of tasks"),
        (_with("policy.md", "x"), None),
    ],
)
def test_a_folder_that_will_not_do_is_named_in_a_line_or_two(library: Path, spoil: Any, told: str | None) -> None:
    spoil(library)

    def use() -> None:
        domain = load_domain("library", path=library)
        domain.load()
        domain.tasks()

    if told is None:
        use()
        return
    with pytest.raises(UserError) as caught:
        use()
    assert told in str(caught.value)
    assert "library" in str(caught.value)
    assert str(caught.value).count("\n") < 2


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("retail", "retail is a domain of the benchmark; give yours a name of its own"),
        ("summary", "choose a name"),
        ("a/b", "choose a name"),
    ],
)
def test_a_name_that_is_taken_or_no_file_name_is_refused(library: Path, name: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        load_domain(name, path=library)


def test_a_database_in_toml_and_a_solo_mode(library: Path) -> None:
    (library / "db.json").unlink()
    (library / "db.toml").write_text('[books.Emma]\ntitle = "Emma"\nrenewals = 0\n')
    (library / "policy_solo.md").write_text("Alone.")
    (library / "split_tasks.json").write_text(json.dumps({"base": ["renew_emma"]}))
    domain = load_domain("library", path=library)
    assert (domain.solo_policy, domain.task_sets()) == ("Alone.", {"base": 1})
    assert asyncio.run(domain.environment(domain.tasks()[0], solo=True).final_state()).compared
