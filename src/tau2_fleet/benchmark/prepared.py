"""What all simulations of one task have in common, computed once: its initial states and its gold state."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from tau2_fleet.benchmark.calculator import ToolDeadline
from tau2_fleet.benchmark.comparison import GoldDatabase
from tau2_fleet.benchmark.databases import share_unchanged
from tau2_fleet.benchmark.scoring.rules import ScoringRules, find_rules
from tau2_fleet.benchmark.settings import DEFAULT
from tau2_fleet.benchmark.task_sets import first_lines
from tau2_fleet.benchmark.tool_calls import perform, respond_blocking
from tau2_fleet.benchmark.transcript import RecordedToolCall, TranscriptError, mismatch, recorded_tool_calls
from tau2_fleet.errors import UserError

if TYPE_CHECKING:
    from tau2.environment.environment import Environment as PackageEnvironment

    from tau2_fleet.benchmark.environment_template import DatabaseState, EnvironmentTemplate
    from tau2_fleet.benchmark.package import Task


@dataclass(frozen=True, slots=True)
class Gold:
    """Both databases as the gold actions leave them."""

    agent: GoldDatabase
    user: GoldDatabase | None


class PreparedTask:
    """One task in one template.

    Raises (when made):
        UserError: the task's initial state cannot be set up.
    """

    def __init__(
        self,
        template: EnvironmentTemplate,
        task: Task,
        rules: ScoringRules | None = None,
        *,
        shares_database: bool = False,
    ) -> None:
        """
        Args:
            rules: which calls of a message history are run; None: those of the installed package.
            shares_database: a task's initial data leave both sides with one database object.
        """
        self.template = template
        self.task = task
        self.rules = rules or find_rules(DEFAULT)
        self._shares_database = shares_database
        self.history = self._history()
        self.opened = self._opened()
        """After the message history too, synced: where a conversation begins."""
        self._gold: Gold | None = None

    @cached_property
    def initial(self) -> DatabaseState:
        """After the task's initial data and actions; a replay of a whole trajectory begins here, which few ask for."""
        return self.template.freeze(self._begun()) if self._sets_up else self.template.pristine

    @property
    def _sets_up(self) -> bool:
        start = self.task.initial_state
        return start is not None and bool(start.initialization_data or start.initialization_actions)

    def _begun(self) -> PackageEnvironment:
        """An environment after the task's initial data and actions."""
        start = self.task.initial_state
        pristine = self.template.pristine
        environment = self.template.open(pristine)
        if start is None:
            return environment
        try:
            data = start.initialization_data
            if data is not None and data.agent_data is not None:
                environment.tools.db = pristine.agent.database.plain()
                environment.tools.update_db(data.agent_data)
                share_unchanged(environment.tools.db, pristine.agent.database)
                if self._shares_database and pristine.user is not None:
                    environment.user_tools.db = environment.tools.db
            if data is not None and data.user_data is not None:
                if pristine.user is not None and not (self._shares_database and data.agent_data is not None):
                    environment.user_tools.db = pristine.user.database.plain()
                environment.user_tools.update_db(data.user_data)
                if self._shares_database:
                    environment.tools.db = environment.user_tools.db
            for action in start.initialization_actions or []:
                environment.run_env_function_call(action)
        except Exception as error:
            raise UserError(f"task {self.task.id}: its initial state cannot be set up: {first_lines(error)}") from error
        return environment

    def _history(self) -> list[RecordedToolCall]:
        start = self.task.initial_state
        messages = start.message_history if start is not None else None
        try:
            return recorded_tool_calls(messages or [])
        except TranscriptError as error:
            raise UserError(f"task {self.task.id}: its message history is broken: {error}") from error

    def _opened(self) -> DatabaseState:
        if not self.history and not self.template.has_user_tools:
            return self.initial  # nothing to run and nothing to sync
        # The package's actions do the same each time; what others do is done once, and `initial` kept.
        environment = self.template.open(self.initial) if self.template.foreign else self._begun()
        for recorded in self.history:
            if not self.rules.replays(recorded.call.name, self.template.tool_types):
                continue
            try:
                answer = respond_blocking(self.template, environment, recorded.call)
            except ToolDeadline as error:
                raise UserError(f"task {self.task.id}: a call of its message history never ends: {error}") from error
            if (difference := mismatch(recorded, answer)) is not None:
                raise UserError(f"task {self.task.id}: its message history does not fit its data: {difference}")
        try:
            environment.sync_tools()
        except Exception as error:
            raise UserError(f"task {self.task.id}: its initial state is inconsistent: {error}") from error
        return self.template.freeze(environment)

    async def gold(self) -> Gold:
        """The state after the gold actions. Failing ones are passed over, and nothing is synced between them."""
        if self._gold is None:
            environment = self.template.open(self.opened)
            criteria = self.task.evaluation_criteria
            for action in (criteria.actions if criteria is not None else None) or []:
                try:
                    await perform(self.template, environment, action.name, action.requestor, action.arguments)
                except Exception:
                    continue
            user = self.opened.user
            self._gold = Gold(
                GoldDatabase("agent", self.opened.agent.database, environment.tools.db),
                None if user is None else GoldDatabase("user", user.database, environment.user_tools.db),
            )
        return self._gold
