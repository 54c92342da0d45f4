"""Whether the keys that `compare` and `plan` are told are keys; misspelt ones would be passed over in silence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tau2_fleet.compare.sources import ResultsSource
from tau2_fleet.errors import UserError

_ALWAYS = ("agent.model", "benchmark.data.tasks")
"""What sides can differ in without a file that has a key of this name."""


def refuse_misspelt(option: str, names: Iterable[str], sources: Sequence[ResultsSource]) -> None:
    """Make sure that each name is a key of the configuration or of a source, or holds some, as `user_llm` does.

    Args:
        option: which they were given with, for the error.

    Raises:
        UserError: there is no such key, with those that resemble it.
    """
    of_sources = {key for source in sources for key in (*source.keys, *source.benchmark, *source.limits)}
    known = _with_groups({*of_sources, *_ALWAYS})
    asked = [name for name in names if name not in known]
    if not asked:
        return
    from tau2_fleet.config.names import did_you_mean, nearest
    from tau2_fleet.config.sources import SHIPPED
    from tau2_fleet.config.table import key_names

    known |= _with_groups(key_names(SHIPPED.choices("domain")))
    for name in asked:
        if name not in known:
            raise UserError(f"{option} {name}: there is no such key.{did_you_mean(nearest(name, sorted(known)))}")


def _with_groups(keys: Iterable[str]) -> set[str]:
    """The keys, and all that they stand below: `limits` and `limits.grace_s`."""
    return {key.rsplit(".", count)[0] for key in keys for count in range(key.count(".") + 1)}
