"""A server that reaches no other: what asks others, for tests of one server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.task import Clock

from synapse.federation.errors import Unreachable
from synapse.federation.hosts import RoomHosts
from synapse.handlers.remote.aside import Aside
from synapse.handlers.remote.inviting import Inviting
from synapse.handlers.remote.joining import Joining, answer_calls
from synapse.handlers.remote.memberships import RemoteMemberships
from synapse.replication.calls import LocalMain
from synapse.storage.database import Database
from synapse.storage.memberships import MembershipsStore
from synapse.storage.room_hosts import RoomHostsStore
from synapse.util.caches import Cache


class Nobody:
    """In the place of `FederationApi`: no server answers, whatever it is asked."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        async def ask(server: str, *_args: Any, **_more: Any) -> Any:
            raise Unreachable(server, f"{server} cannot be reached.")

        return ask


def alone(db: Database, process: Any, signer: Any) -> RemoteMemberships:
    """What asks others on behalf of a process (`tests.support.rooms.RoomProcess`), to which nobody answers."""
    api: Any = Nobody()
    none: Any = None
    main = LocalMain()
    joining = Joining(api, none, process.members, none, none, none, signer, Clock())
    answer_calls(main, lambda: joining)
    return RemoteMemberships(
        main,
        lambda: Aside(api, none, none, signer, Clock()),
        lambda: Inviting(api, process.creation, process.state, none),
        process.creation,
        process.heads,
        process.members,
        process.state,
        process.events,
        MembershipsStore(db),
        RoomHosts(RoomHostsStore(db), Cache("hosts", 100)),
        signer.server_name,
        process.caught_up,
    )
