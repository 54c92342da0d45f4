"""The token ids of a model's prompts and answers, where its server gives them: asked for, read, kept in few numbers.

vLLM gives them since 0.10.2. Prompts of a conversation mostly begin with the one before and its answer, so a record
holds of each prompt only how much it has of those, and the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeGuard

Json = dict[str, Any]
ASKING: Json = {"return_token_ids": True, "logprobs": True}
"""Keys of a request's body that ask for them."""
_DIGITS = 5
"""Of a log-probability behind the point."""


@dataclass(frozen=True, slots=True)
class TokenIds:
    """One call: what the model read and what it sampled."""

    prompt: list[int]
    completion: list[int]
    logprobs: list[float] | None
    """Natural logarithms, one for each id of `completion`; None: not given, or not for each."""


@dataclass(frozen=True, slots=True)
class RecordedModelCall:
    """One call as a record has it, with its ids spelt out."""

    number: int
    """Which of the record's calls it is."""
    ids: TokenIds
    kept: int
    """With how many ids of the call before, its prompt and its completion, the prompt begins."""
    before: int
    """How many ids the call before had, prompt and completion; 0 for the first."""

    @property
    def goes_on(self) -> bool:
        """Whether the prompt begins with all that was read and sampled before."""
        return self.kept == self.before


def token_ids_in(completion: Json, choice: Json) -> TokenIds | None:
    """The ids in a chat completion; None where the server gave none that can be used."""
    prompt = completion.get("prompt_token_ids") or choice.get("prompt_token_ids")
    sampled = choice.get("token_ids")
    if not _are_ids(prompt) or not _are_ids(sampled):
        return None
    return TokenIds(prompt, sampled, _logprobs(choice.get("logprobs"), len(sampled)))


def _are_ids(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(one) is int for one in value)


def _logprobs(value: Any, wanted: int) -> list[float] | None:
    content = value.get("content") if isinstance(value, dict) else None
    if not isinstance(content, list) or len(content) != wanted:
        return None
    found: list[Any] = [one.get("logprob") if isinstance(one, dict) else None for one in content]
    return [round(one, _DIGITS) for one in found] if all(type(one) in (float, int) for one in found) else None


class TokenChain:
    """The calls of one role in order, while they are recorded."""

    def __init__(self) -> None:
        self._before: list[int] = []

    def packed(self, ids: TokenIds) -> Json:
        """The next call's ids for the record: `kept`, `prompt` (what follows on that), `completion`, `logprobs`."""
        kept = _shared(self._before, ids.prompt)
        self._before = ids.prompt + ids.completion
        found: Json = {"kept": kept, "prompt": ids.prompt[kept:], "completion": ids.completion}
        return found if ids.logprobs is None else {**found, "logprobs": ids.logprobs}


def recorded_model_calls(calls: Iterable[Json], role: str = "agent") -> Iterator[RecordedModelCall]:
    """The calls of a role that have ids, in order; it ends at one whose ids are not of the form."""
    before: list[int] = []
    for number, call in enumerate(calls):
        packed = call.get("tokens")
        if call.get("role") != role or not isinstance(packed, dict):
            continue
        kept, rest, sampled = (packed.get(name) for name in ("kept", "prompt", "completion"))
        if type(kept) is not int or not 0 <= kept <= len(before) or not _are_ids(rest) or not _are_ids(sampled):
            return
        logprobs = packed.get("logprobs")
        ids = TokenIds(before[:kept] + rest, sampled, logprobs if isinstance(logprobs, list) else None)
        yield RecordedModelCall(number, ids, kept, len(before))
        before = ids.prompt + ids.completion


def _shared(one: list[int], other: list[int]) -> int:
    """With how many equal ids both begin."""
    shortest = min(len(one), len(other))
    if one[:shortest] == other[:shortest]:
        return shortest
    return next(at for at in range(shortest) if one[at] != other[at])
