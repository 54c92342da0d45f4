"""Domains, task sets and data folders are the package's, and a wrong name says which one is near."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from unittest import mock

import pytest

from tau2_fleet.benchmark.domains import DOMAINS, load_domain
from tau2_fleet.benchmark.package import DATA_DIR
from tau2_fleet.errors import UserError

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")

SIZES = {
    "mock": {"base": 9},
    "retail": {"base": 114, "train": 74, "test": 40},
    "airline": {"base": 50, "train": 30, "test": 20},
    "telecom": {"base": 114, "small": 20, "train": 74, "test": 40, "full": 2285},
    "telecom-workflow": {"base": 114, "small": 20, "train": 74, "test": 40, "full": 2285},
}
FOLDER = Path(DATA_DIR, "tau2", "domains")


@pytest.mark.parametrize("name", DOMAINS)
def test_policies_tools_and_tasks_are_the_packages(name: str) -> None:
    from tau2.registry import registry

    domain = load_domain(name)
    theirs = registry.get_env_constructor(name)()
    assert domain.policy == theirs.get_policy()
    assert domain.agent_tools == [tool.openai_schema for tool in theirs.get_tools()]
    user_tools = theirs.get_user_tools() if theirs.user_tools is not None else []
    assert domain.user_tools == [tool.openai_schema for tool in user_tools]
    assert load_domain(name).has_user_tools is bool(user_tools)
    assert domain.task_sets() == SIZES[name]
    for task_set in ("base", "small" if "small" in SIZES[name] else "base"):
        assert domain.tasks(task_set) == registry.get_tasks_loader(name)(task_split_name=task_set)
        assert len(domain.tasks(task_set)) == SIZES[name][task_set]
    if domain.supports_solo:
        assert domain.solo_policy == registry.get_env_constructor(name)(solo_mode=True).get_policy()


def test_only_mock_and_telecom_have_a_solo_mode() -> None:
    assert [name for name in DOMAINS if load_domain(name).supports_solo] == ["mock", "telecom", "telecom-workflow"]
    domain = load_domain("retail")
    with pytest.raises(UserError, match=r"does not support agent\.mode=solo"):
        domain.environment(domain.tasks()[0], solo=True)


def test_a_domain_and_its_tasks_are_loaded_once() -> None:
    assert load_domain("retail") is load_domain("retail")
    assert load_domain("retail").tasks()[0] is load_domain("retail").tasks(limit=3)[0]


def test_ids_and_limit_select_in_the_order_of_the_file() -> None:
    domain = load_domain("retail")
    assert [task.id for task in domain.tasks(ids=["7", "5", "100"], limit=2)] == ["5", "7"]
    assert domain.tasks(ids=[]) == []
    assert [task.id for task in domain.tasks(limit=3)] == [task.id for task in domain.tasks()][:3]
    assert set(domain.find(["5", "nowhere"])) == {"5"}


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda: load_domain("retial"), "did you mean 'retail'"),
        (lambda: load_domain("bank"), "has no tasks for it"),
        (lambda: load_domain("mock").tasks("bse"), r"did you mean 'base'\?; it has base \(9\)"),
        (lambda: load_domain("mock").tasks("no/such/file.json"), "no task set or file"),
        (lambda: load_domain("mock").tasks(ids=["create_task_11"]), "did you mean 'create_task_1'"),
        (lambda: load_domain("mock", Path("/nonexistent")), "tasks.json is missing"),
    ],
)
def test_what_is_not_there_is_said_in_a_line(ask: object, said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        ask()  # type: ignore[operator]
    assert "\n" not in str(error.value)


def test_tasks_come_from_any_file_of_their_form(tmp_path: Path) -> None:
    raw = json.loads((FOLDER / "mock" / "tasks.json").read_text())
    domain = load_domain("mock")
    for number, content in enumerate((raw[3:5], {"tasks": raw[3:5]})):
        own = tmp_path / f"own{number}.json"
        own.write_text(json.dumps(content))
        assert [task.id for task in domain.tasks(str(own))] == [task["id"] for task in raw[3:5]]
    for number, (content, said) in enumerate(
        [('{"a": 1}', "not a list of tasks"), ("[", "not JSON"), ('[{"id": "x"}]', "user_scenario")]
    ):
        broken = tmp_path / f"{number}.json"
        broken.write_text(content)
        with pytest.raises(UserError, match=said):
            domain.tasks(str(broken))


def test_other_data_of_the_same_form_is_read_from_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "tau2" / "domains" / "mock"
    shutil.copytree(FOLDER / "mock", folder)
    database = json.loads((folder / "db.json").read_text())
    database["users"]["user_9"] = {"user_id": "user_9", "name": "Ninth", "tasks": []}
    (folder / "db.json").write_text(json.dumps(database))
    (folder / "policy.md").write_text("Another policy.")
    (folder / "split_tasks.json").unlink()

    from tau2.domains.mock import environment as module

    before = dict(vars(module))
    other = load_domain("mock", tmp_path)
    assert {name: value for name, value in vars(module).items() if name.endswith("PATH")} == {
        name: value for name, value in before.items() if name.endswith("PATH")
    }
    assert other is not load_domain("mock")
    assert other.policy == "Another policy."
    assert "user_9" in other.template.pristine.agent.database.fields["users"]
    assert "user_9" not in load_domain("mock").template.pristine.agent.database.fields["users"]
    assert other.task_sets() == {"base": 9}
    assert load_domain("mock", folder) is other
    with mock.patch.dict(os.environ, {"TAU2_DATA_DIR": str(tmp_path)}):
        assert load_domain("mock").folder == other.folder
    assert other.digests["db.json"] == hashlib.sha256((folder / "db.json").read_bytes()).hexdigest()
    assert {key for key in other.digests if other.digests[key] != load_domain("mock").digests.get(key)} == {
        "policy",
        "db.json",
    }


def test_broken_data_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "mock"
    shutil.copytree(FOLDER / "mock", folder)
    (folder / "db.json").write_text('{"tasks": {}}')
    with pytest.raises(UserError, match=r"its data in .* cannot be read"):
        load_domain("mock", folder).load()


def test_telecom_workflow_is_telecom_with_another_policy() -> None:
    telecom, workflow = load_domain("telecom"), load_domain("telecom-workflow")
    assert telecom.policy != workflow.policy
    assert telecom.agent_tools == workflow.agent_tools
    assert [task.id for task in telecom.tasks()] == [task.id for task in workflow.tasks()]
    different = {name for name in telecom.digests if telecom.digests[name] != workflow.digests[name]}
    assert different == {"policy"}
