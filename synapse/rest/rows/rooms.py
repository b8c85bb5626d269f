"""What answers for rooms: writing, reading, syncing, finding."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synapse.rest.rows.types import Row

if TYPE_CHECKING:
    from synapse.app._homeserver import Homeserver

# -- rooms: writing ---------------------------------------------------------------------------------------------------


def _room_create(hs: Homeserver) -> object:
    from synapse.rest.client.room_writing import RoomCreate

    return RoomCreate(hs.rooms.room_creation, hs.rooms.room_upgrade)


def _room_writing(hs: Homeserver) -> object:
    from synapse.rest.client.room_writing import RoomWriting

    return RoomWriting(hs.rooms.creation, hs.rooms.redactions, hs.rooms.memberships)


def _room_membership(hs: Homeserver) -> object:
    from synapse.rest.client.room_membership import RoomMembership

    return RoomMembership(hs.rooms.memberships)


def _room_aliases(hs: Homeserver) -> object:
    from synapse.rest.client.room_directory import RoomAliases

    return RoomAliases(hs.rooms.aliases)


def _room_directory(hs: Homeserver) -> object:
    from synapse.rest.client.room_directory import RoomDirectory

    return RoomDirectory(hs.rooms.public_rooms)


# -- rooms: reading ---------------------------------------------------------------------------------------------------


def _room_reading(hs: Homeserver) -> object:
    from synapse.rest.client.room_reading import RoomReadingEndpoints

    return RoomReadingEndpoints(hs.reading.room_reading)


def _messages(hs: Homeserver) -> object:
    from synapse.rest.client.room_reading import MessagesEndpoint

    return MessagesEndpoint(hs.reading.pagination)


def _context(hs: Homeserver) -> object:
    from synapse.rest.client.room_reading import ContextEndpoint

    return ContextEndpoint(hs.reading.context)


def _relations(hs: Homeserver) -> object:
    from synapse.rest.client.relations import RelationsEndpoints

    return RelationsEndpoints(hs.reading.relations)


def _threads(hs: Homeserver) -> object:
    from synapse.rest.client.relations import ThreadsEndpoint

    return ThreadsEndpoint(hs.reading.threads)


def _timestamp(hs: Homeserver) -> object:
    from synapse.rest.client.relations import TimestampEndpoint

    return TimestampEndpoint(hs.reading.nearest_event)


def _sync(hs: Homeserver) -> object:
    from synapse.rest.client.sync import SyncEndpoint

    reading = hs.reading
    most = hs.config.server.filter_timeline_limit
    return SyncEndpoint(reading.syncs, hs.accounts.filters, reading.filters, reading.syncing_users, most)


def _old_sync(hs: Homeserver) -> object:
    from synapse.rest.client.old_sync import OldSyncEndpoints

    reading = hs.reading
    return OldSyncEndpoints(reading.event_stream, reading.initial_sync, reading.syncing_users)


def _ephemeral(hs: Homeserver) -> object:
    from synapse.rest.client.ephemeral import EphemeralEndpoints

    return EphemeralEndpoints(hs.reading.typing, hs.reading.receipts)


def _presence(hs: Homeserver) -> object:
    from synapse.rest.client.presence import PresenceEndpoints

    return PresenceEndpoints(hs.reading.presence)


# -- finding things ---------------------------------------------------------------------------------------------------


def _search(hs: Homeserver) -> object:
    from synapse.rest.client.search import SearchEndpoint

    return SearchEndpoint(hs.finding.search)


def _finding_rooms(hs: Homeserver) -> object:
    from synapse.rest.client.finding_rooms import FindingRooms

    return FindingRooms(hs.finding.spaces, hs.finding.room_summaries, hs.finding.mutual_rooms)


def _reports(hs: Homeserver) -> object:
    from synapse.rest.client.reports import ReportEndpoints

    return ReportEndpoints(hs.finding.reports)


def _admin_reports(hs: Homeserver) -> object:
    from synapse.rest.admin.reports import AdminReports

    return AdminReports(hs.finding.reports_admin)


# -- the rows --------------------------------------------------------------------------------------------------------

ROWS: tuple[Row, ...] = (
    Row(("room_create", "room_upgrade"), _room_create),
    Row(("room_send", "room_send_once", "room_redact", "room_redact_once", "room_state_set"), _room_writing),
    Row(
        (
            *("join", "room_join", "knock", "room_leave", "room_invite", "room_kick", "room_ban", "room_unban"),
            *("room_forget", "joined_rooms"),
        ),
        _room_membership,
    ),
    Row(
        (
            *("alias_get", "alias_set", "alias_delete", "room_aliases"),
            *("room_visibility_get", "room_visibility_set"),
        ),
        _room_aliases,
    ),
    Row(("public_rooms", "public_rooms_search"), _room_directory),
    Row(("room_state", "room_state_get", "room_members", "room_joined_members", "room_event", "event"), _room_reading),
    Row(("room_messages",), _messages),
    Row(("room_context",), _context),
    Row(("room_relations", "room_relations_of_type"), _relations),
    Row(("room_threads",), _threads),
    Row(("room_timestamp_to_event",), _timestamp),
    Row(("sync",), _sync),
    Row(("events", "initial_sync", "room_initial_sync"), _old_sync),
    Row(("room_typing", "room_receipt", "room_read_markers"), _ephemeral),
    Row(("presence_get", "presence_set"), _presence),
    Row(("search",), _search),
    Row(
        (
            "room_hierarchy",
            "room_summary",
            "room_summary_unstable",
            "room_summary_oldest",
            "mutual_rooms",
            "mutual_rooms_unstable",
        ),
        _finding_rooms,
    ),
    Row(("report_event", "report_room", "report_user"), _reports),
    Row(
        (
            *("admin_event_reports", "admin_event_report_get", "admin_event_report_delete"),
            *("admin_room_reports", "admin_room_report_get", "admin_room_report_delete"),
            *("admin_user_reports", "admin_user_report_get", "admin_user_report_delete"),
        ),
        _admin_reports,
    ),
)
