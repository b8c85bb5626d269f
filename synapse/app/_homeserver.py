"""The composition root: one lazily built, typed attribute per service.

Each property imports what it builds, so that a process loads only the services that it uses. Services take what they
need in their constructor; only the app layer (and the factories in `synapse.rest.registry`) ever sees this object.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from contextlib import AbstractAsyncContextManager

    from synapse.app._accounts import Accounts
    from synapse.app._conduct import Conduct
    from synapse.app._doors import Doors
    from synapse.app._edus import Edus
    from synapse.app._encryption import Encryption
    from synapse.app._extras import Extras
    from synapse.app._federation import Federation
    from synapse.app._finding import Finding
    from synapse.app._pushing import Pushing
    from synapse.app._queries import Queries
    from synapse.app._reading import Reading
    from synapse.app._receiving import Receiving
    from synapse.app._remote import Remote
    from synapse.app._replication import Replication
    from synapse.app._rooms import Rooms
    from synapse.app._sending import Sending
    from synapse.app._sessions import Sessions
    from synapse.app._sso import SignOnServices
    from synapse.app.applications import Application
    from synapse.config import Config
    from synapse.config.listeners import Listener
    from synapse.handlers.auth import Authenticator
    from synapse.handlers.edus.asking import TheirKeys
    from synapse.handlers.positions import StreamWriter
    from synapse.http.drain import Drain
    from synapse.http.ratelimit import RateLimits
    from synapse.http.server import Request, Router
    from synapse.http.site import Site
    from synapse.metrics.sources import ReactorLag
    from synapse.replication.calls import MainProcess
    from synapse.replication.contacts import RoomsOfUsers
    from synapse.replication.leases import Duty
    from synapse.replication.notifier import Notifier
    from synapse.replication.writing import MainStreams, NoStreams
    from synapse.storage.database import Database
    from synapse.storage.user_ips import Seen
    from synapse.util.caches import Caches
    from synapse.util.repeating import Repeating


class Homeserver:
    """Everything that one process is made of.

    :param config: the settings of this process, main and worker files merged.
    :param application: what this process serves and which duties it has.
    :param reactor: the event loop; tests pass one whose clock they hold.
    """

    def __init__(self, config: Config, application: Application, reactor: Any) -> None:
        self.config = config
        self.application = application
        self.reactor = reactor

    @property
    def is_main(self) -> bool:
        """True in the one process that writes the streams."""
        return self.application.name == "homeserver"

    # -- storage: infrastructure -------------------------------------------------------------------------------

    @cached_property
    def database(self) -> Database:
        """The one way to the database; it is prepared before there is a Homeserver."""
        from synapse.logging.context import request_costs
        from synapse.metrics.sources import watch_database
        from synapse.storage.database import Database
        from synapse.storage.prepare import pool_settings

        database = Database(self.reactor, pool_settings(self.config.database, start=False), request_costs)
        watch_database(database.usage, database.pool)
        return database

    def start_database(self) -> None:
        """Starts the embedded database if it has died. Blocks: to be called in a thread. Raises `DatabaseProblem`."""
        from synapse.storage.prepare import pool_settings

        pool_settings(self.config.database, start=True)

    @cached_property
    def caches(self) -> Caches:
        """Every cache of this process, by name."""
        from synapse.metrics.sources import watch_caches
        from synapse.util.caches import Caches

        caches = Caches(self.config.caches.size)
        watch_caches(caches)
        return caches

    # -- replication ---------------------------------------------------------------------------------------------

    @cached_property
    def rooms_of_users(self) -> RoomsOfUsers:
        """Who is in which rooms; for those who share them."""
        from synapse.replication.contacts import RoomsOfUsers

        return RoomsOfUsers(self.database, self.caches.cache("rooms_of_users", 5_000, shared=False))

    @cached_property
    def notifier(self) -> Notifier:
        """The streams as this process has heard of them."""
        from synapse.replication.notifier import Notifier

        notifier = Notifier(self.reactor, self.rooms_of_users)
        self.rooms_of_users.follow(notifier)
        return notifier

    @cached_property
    def replication(self) -> Replication:
        """This process's place among the others."""
        from synapse.app._replication import MainReplication, WorkerReplication

        return MainReplication(self) if self.is_main else WorkerReplication(self)

    @property
    def main(self) -> MainProcess:
        """Calls to the main process; plain calls within it."""
        return self.replication.main

    @property
    def streams(self) -> MainStreams | NoStreams:
        """The writing ends of the streams; in a worker, ends that refuse."""
        return self.replication.streams

    def stream_writer(self, name: str) -> StreamWriter:
        """The writing end of a stream; in a worker, one that refuses."""
        return self.streams.writer(name)

    async def invalidate(self, cache: str, keys: Iterable[str | None]) -> None:
        """Has every process forget keys of a cache (None: all of it), this one before it returns."""
        await self.replication.invalidate(cache, keys)

    async def report_sightings(self, batch: list[Seen]) -> None:
        """Hands sightings over to the main process; for workers."""
        await self.replication.report_sightings(batch)

    # -- http ----------------------------------------------------------------------------------------------------

    @cached_property
    def drain(self) -> Drain:
        """The requests in flight, and the end of them."""
        from synapse.http.drain import Drain

        return Drain(self.reactor)

    @cached_property
    def ratelimits(self) -> RateLimits:
        """How often somebody may do something."""
        from synapse.http.ratelimit import RateLimits

        return RateLimits(self.config.ratelimiting.by_name, self.reactor)

    @cached_property
    def router(self) -> Router:
        """Every endpoint that this process serves, over whichever listener."""
        from synapse.federation.errors import FederationError, matrix_error
        from synapse.http.server import Router
        from synapse.rest.registry import mount
        from synapse.storage.errors import DatabaseUnavailable, OutcomeUnknown, refusal_of

        router = Router(self.drain, self.authenticator, self.ratelimits, self)
        router.translate(DatabaseUnavailable, refusal_of)
        router.translate(OutcomeUnknown, refusal_of)
        router.translate(FederationError, matrix_error)
        mount(router, self, self.application.endpoints)
        self.replication.mount(router)
        return router

    @cached_property
    def lag(self) -> ReactorLag:
        """Measures how busy the reactor is."""
        from synapse.metrics.sources import ReactorLag

        return ReactorLag(self.reactor)

    def site(self, listener: Listener) -> Site:
        """What serves the connections of an http or metrics listener."""
        from synapse.http.site import build_site

        return build_site(self.router, listener, self.reactor)

    # -- accounts, devices, keys, media, directory -------------------------------------------------------------

    @cached_property
    def accounts(self) -> Accounts:
        """Users, sessions, devices, profiles, settings, keys, media, the user directory."""
        from synapse.app._accounts import Accounts

        return Accounts(self)

    @cached_property
    def sso(self) -> SignOnServices:
        """Logging in without a password of this server."""
        from synapse.app._sso import SignOnServices

        return SignOnServices(self)

    @cached_property
    def sessions(self) -> Sessions:
        """Logging in, and the sessions that it makes."""
        from synapse.app._sessions import Sessions

        return Sessions(self)

    @cached_property
    def conduct(self) -> Conduct:
        """What accounts may do, and what this server tells its users."""
        from synapse.app._conduct import Conduct

        return Conduct(self)

    @cached_property
    def extras(self) -> Extras:
        """What accounts have besides: key backups, dehydrated devices, OpenID tokens."""
        from synapse.app._extras import Extras

        return Extras(self)

    @cached_property
    def pushing(self) -> Pushing:
        """Push notifications."""
        from synapse.app._pushing import Pushing

        return Pushing(self)

    @cached_property
    def duties(self) -> list[Duty]:
        """What this process does for all others, each under its lease."""
        from synapse.app._duties import duties_of

        return duties_of(self)

    @property
    def background(self) -> list[Repeating]:
        """What this process does once in a while."""
        from synapse.app._duties import vacancies_of

        return [
            *self.accounts.background,
            *self.conduct.background,
            *self.rooms.background,
            *self.finding.background,
            *self.extras.background,
            *self.encryption.background,
            *self.receiving.background,
            *self.edus.background,
            *self.federation.background,
            *vacancies_of(self),
        ]

    @property
    def authenticator(self) -> Authenticator:
        """Who asks."""
        return self.accounts.authenticator

    # -- other servers --------------------------------------------------------------------------------------------

    @cached_property
    def federation(self) -> Federation:
        """Other servers: their keys, where they are, what is asked of them."""
        from synapse.app._federation import Federation

        return Federation(self)

    async def origin_of(self, request: Request) -> str:
        """The server that has signed a request: what the router asks, of which most processes never learn."""
        return await self.federation.authenticator.origin_of(request)

    def turn(self, origin: str) -> AbstractAsyncContextManager[None]:
        """Waits until a request of that server may be worked on, which happens within."""
        return self.federation.origin_limits.admitted(origin)

    # -- rooms: writing ------------------------------------------------------------------------------------------

    @cached_property
    def rooms(self) -> Rooms:
        """Events, memberships, aliases, the room directory; in the main process, the writer of events."""
        from synapse.app._rooms import Rooms

        return Rooms(self)

    async def update_profile_in_rooms(self, user_id: str) -> None:
        """Shows a user's name and picture with their presence, and writes them into their memberships."""
        await self.reading.show_presence(user_id)
        await self.rooms.room_profiles.update(user_id)

    async def profile_elsewhere(self, user_id: str) -> dict[str, Any]:
        """The profile of another server's user, asked for there."""
        return await self.queries.federated_profiles.get(user_id)

    async def user_registered(self, user_id: str) -> None:
        """Has a new user join the rooms that everybody is in."""
        await self.rooms.auto_join.welcome(user_id)

    async def user_deactivated(self, user_id: str) -> None:
        """Has the user leave all rooms, in the background, and seem offline."""
        self.rooms.departures.begin()
        await self.reading.forget_presence(user_id)

    # -- rooms: reading and sync ---------------------------------------------------------------------------------

    @cached_property
    def reading(self) -> Reading:
        """Sync, pages of history, state, typing, receipts, presence."""
        from synapse.app._reading import Reading

        return Reading(self)

    @cached_property
    def doors(self) -> Doors:
        """Memberships that other servers ask for; the policy server that this server may be."""
        from synapse.app._doors import Doors

        return Doors(self)

    @cached_property
    def receiving(self) -> Receiving:
        """What other servers send."""
        from synapse.app._receiving import Receiving

        return Receiving(self)

    # -- encryption ------------------------------------------------------------------------------------------------

    async def ignorers(self, user_ids: Collection[str], sender: str) -> Collection[str]:
        """Those of the users who ignore the sender."""
        return await self.reading.memory.ignored.ignorers(user_ids, sender)

    @cached_property
    def encryption(self) -> Encryption:
        """Cross-signing, looking keys up."""
        from synapse.app._encryption import Encryption

        return Encryption(self)

    # -- finding things --------------------------------------------------------------------------------------------

    @cached_property
    def finding(self) -> Finding:
        """Searching messages, spaces, rooms that users share."""
        from synapse.app._finding import Finding

        return Finding(self)

    # -- other servers ---------------------------------------------------------------------------------------------

    @cached_property
    def remote(self) -> Remote:
        """What other servers help with: memberships, and history from before this one came."""
        from synapse.app._remote import Remote

        return Remote(self)

    @cached_property
    def queries(self) -> Queries:
        """What servers ask one another, and which servers are in which rooms."""
        from synapse.app._queries import Queries

        return Queries(self)

    @cached_property
    def edus(self) -> Edus:
        """What servers tell each other that is not events, both ways."""
        from synapse.app._edus import Edus

        return Edus(self)

    @cached_property
    def sending(self) -> Sending:
        """What other servers are sent."""
        from synapse.app._sending import Sending

        return Sending(self)

    def acknowledge_events(self, position: int) -> None:
        """Tells the main process up to where the events stream is queued for other servers."""
        self.replication.acknowledge_events(position)

    @property
    def their_keys(self) -> TheirKeys:
        """Keys of other servers' users."""
        return self.edus.their_keys
