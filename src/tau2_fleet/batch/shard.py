"""A part of a run's simulations, chosen by a hash, so that several machines can share them without talking.

`plan.py` takes a schedule's part, `merge` asks which parts there must be.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from tau2_fleet.record.line import SimulationKey


@dataclass(frozen=True, slots=True)
class Shard:
    """Part `index`, from 0, of `count`; the default is all."""

    index: int = 0
    count: int = 1

    def takes(self, key: SimulationKey) -> bool:
        """Whether the simulation is in this part; each is in exactly one."""
        return shard_of(key, self.count) == self.index

    def share(self, total: int) -> int:
        """This part of a number that all parts together may use."""
        return total // self.count + (self.index < total % self.count)

    def __str__(self) -> str:
        return f"shard {self.index} of {self.count}"


WHOLE = Shard()
"""The only part there is."""


def shard_of(key: SimulationKey, count: int) -> int:
    """The part that a simulation is in, on every machine and in every version; parts are equal only on average."""
    if count == 1:
        return 0
    name = "\0".join((key.domain, key.task_id, str(key.trial)))
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()[:8], "big") % count
