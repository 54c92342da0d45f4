"""`server.routing=sticky`: a session stays with its replica, a new one goes where the fewest sessions are."""

from __future__ import annotations

from tau2_fleet.fleet.routing_policy import ReadyReplicas, ReplicaLoad, StatelessPolicy

_FULLER_BY = 1.5
_FULLER_PLUS = 3
"""A session leaves its replica only when that holds more than 1.5 times the sessions of the emptiest, plus 3:
replicas that became ready late, or came back, get their share, and no session is moved to and fro."""


class Sticky(StatelessPolicy):
    """Keeps the prefix cache of a conversation warm; the default."""

    def choose(
        self, session: str, home: ReplicaLoad | None, ready: ReadyReplicas, avoid: ReplicaLoad | None
    ) -> ReplicaLoad | None:
        if home is not None and home.up and home is not avoid:
            emptiest = ready.fewest_sessions()
            if emptiest is None or home.sessions <= emptiest.sessions * _FULLER_BY + _FULLER_PLUS:
                return home
        return ready.fewest_sessions(avoid)
