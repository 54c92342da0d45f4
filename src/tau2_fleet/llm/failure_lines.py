"""What people are told of a model that does not answer: its name, what it said, what to change; `model.py` asks."""

from __future__ import annotations

from tau2_fleet.llm.failures import Failure, FailureCause


class FailureLines:
    """Of one model."""

    def __init__(self, name: str, asked_as: str | None = None, key_env: str | None = None) -> None:
        """`asked_as` is the name that the provider knows; `key_env` names the variable that holds the key."""
        self._name = name
        self._asked_as = asked_as or name
        self._key = f"the key in {key_env}" if key_env else "the request's key, or its having none,"

    def line(self, failure: Failure, attempts: int, advice: str = "") -> str:
        """What is wrong after so many attempts.

        Args:
            advice: what to change, where more is known of it than the failure says.
        """
        match failure.cause:
            case FailureCause.key:
                return f"{self._name}: {self._key} is not accepted ({failure})"
            case FailureCause.forbidden:
                return f"{self._name}: {self._key} may not use the model, or a gateway lets nobody in ({failure})"
            case FailureCause.model:
                return f"{self._name}: the server has no model {self._asked_as!r}, or another base_url ({failure})"
            case FailureCause.credit:
                return f"{self._name}: the account has no credit or quota left ({failure})"
        times = f" after {attempts} attempts" if attempts > 1 else ""
        return f"{self._name}{times}: {failure}{advice}"
