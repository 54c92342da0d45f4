"""Names of models that the configuration leaves to their servers.

`execution.py` asks the fleet for them, `completion.py` the record.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tau2_fleet.errors import UserError
from tau2_fleet.llm.endpoints import Endpoint
from tau2_fleet.llm.settings import ModelSettings
from tau2_fleet.record.store import Store
from tau2_fleet.simulation.roles import Roles


def named_by_record(roles: Roles[ModelSettings], store: Store) -> Roles[ModelSettings]:
    """The roles with the names that their models have in the latest records."""
    return roles.named({role: name for role, name in _recorded(store).items() if role in roles.unnamed()})


def named_by_servers(
    roles: Roles[ModelSettings], endpoints: Callable[[str], Sequence[Endpoint]], store: Store, *, force: bool
) -> Roles[ModelSettings]:
    """The roles with the names that the servers give their models now; `endpoints` gives the servers of a pool.

    Raises:
        UserError: the servers of one pool serve different models, or others than this run began with (unless `force`).
    """
    now: dict[str, str] = {}
    before = _recorded(store)
    for role, pool in roles.unnamed().items():
        served = sorted({endpoint.model for endpoint in endpoints(pool)})
        if len(served) > 1:
            raise UserError(f"the servers of pool {pool} serve different models: {', '.join(served)}; give them one")
        if not served:
            continue
        [now[role]] = served
        if before.get(role, now[role]) != now[role] and not force:
            raise UserError(
                f"{store.directory} was begun with the model {before[role]} as {role}; its servers now serve "
                f"{now[role]}.\nLet them serve it again, begin a new run, or go on all the same with resume_force=true."
            )
    return roles.named(now)


def _recorded(store: Store) -> dict[str, str]:
    """Role to model in the latest record that has a call of it."""
    entries = sorted(store.entries.values(), key=lambda entry: entry.offset)
    return {part.role: part.model for entry in entries for part in entry.spending}
