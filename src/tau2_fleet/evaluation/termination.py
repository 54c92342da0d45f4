"""Why a simulation ended: the benchmark's reasons and three of this program's own."""

from __future__ import annotations

from enum import StrEnum


class TerminationReason(StrEnum):
    """The end of a simulation, as it is written in records and results."""

    user_stop = "user_stop"
    """The user wrote one of its stop tokens: a regular end."""
    agent_stop = "agent_stop"
    """A solo agent called `done`: a regular end."""
    max_steps = "max_steps"
    """The conversation had as many steps as it may."""
    too_many_errors = "too_many_errors"
    """As many tool calls failed as may, the agent's and the user's together."""
    agent_error = "agent_error"
    """The agent broke the rules of the conversation or had nothing to say."""
    user_error = "user_error"
    """The same of the user."""
    judge_stop = "judge_stop"
    """The package's detector of repetition; understood when read, never written."""
    infrastructure_error = "infrastructure_error"
    """Something outside agent, user and environment failed: a server, a key, a judge that cannot be read."""
    context_overflow = "context_overflow"
    """The history no longer fits a model's context, however it is cut."""
    deadline = "deadline"
    """The simulation's time was over, or a tool call reached its limit of CPU time."""

    @property
    def regular(self) -> bool:
        """Whether the conversation came to its own end; only then is there a reward."""
        return self in (TerminationReason.user_stop, TerminationReason.agent_stop)


OURS = frozenset(
    {TerminationReason.infrastructure_error, TerminationReason.context_overflow, TerminationReason.deadline}
)
"""The endings that the benchmark's results schema does not know: they say nothing about the agent, count as failures
and are shown apart. Its files have `agent_error` in their place."""
