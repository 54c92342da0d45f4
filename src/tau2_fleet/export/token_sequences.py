"""What the agent's model read and sampled, as sequences of token ids to train on; `sft` has them beside messages."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tau2_fleet.export.conversation import SPOILT, Trained
from tau2_fleet.llm.token_ids import RecordedModelCall, recorded_model_calls

Json = dict[str, Any]


@dataclass(slots=True)
class Sequence:
    """Ids of calls of which each prompt begins with all that was read and sampled before."""

    ids: list[int] = field(default_factory=list)
    loss_mask: list[int] = field(default_factory=list)
    """1 for ids that the agent's model sampled in a turn that is to be learnt."""
    logprobs: list[float | None] = field(default_factory=list)
    """Of the ids that were sampled; null for all others."""

    def takes(self, prompt: list[int]) -> bool:
        """Whether a prompt goes on from here."""
        return prompt[: len(self.ids)] == self.ids

    def add(self, call: RecordedModelCall, learnt: bool) -> None:
        """A call that goes on from here."""
        heard = call.ids.prompt[len(self.ids) :]
        sampled = call.ids.completion
        self.ids += heard + sampled
        self.loss_mask += [0] * len(heard) + [int(learnt)] * len(sampled)
        self.logprobs += [None] * len(heard)
        self.logprobs += call.ids.logprobs or [None] * len(sampled)


def tokens_of(record: Json, trained: Trained) -> Json | None:
    """Sequences of a simulation, and where they had to be parted; None where the servers gave no ids.

    `token_breaks` names each call whose prompt does not begin with what was read and sampled before: the call's place
    in the record, how many ids were the same, and how many there had been.
    """
    sequences: list[Sequence] = []
    breaks: list[Json] = []
    for call in recorded_model_calls(record["calls"]):
        about = record["calls"][call.number]
        if not call.goes_on:
            breaks.append({"call": call.number, "same": call.kept, "of": call.before})
        if about.get("empty"):
            continue  # it was asked for again, and is no turn
        conditions = about.get("conditions")
        spoilt = isinstance(conditions, list) and not SPOILT.isdisjoint(map(str, conditions))
        if not sequences or not sequences[-1].takes(call.ids.prompt):
            sequences.append(Sequence())
        sequences[-1].add(call, not spoilt and trained is not Trained.experts)
    if not sequences:
        return None
    told = [{"ids": one.ids, "loss_mask": one.loss_mask, "logprobs": one.logprobs} for one in sequences]
    return {"token_sequences": told, "token_breaks": breaks}
