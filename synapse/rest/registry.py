"""Which class serves which endpoints, and how it is made from the services of a process.

One row per class: the names that it serves (a test compares them with its methods), and a function that makes it. Rows
import what they make only when it is made, so that a process loads the code of those endpoints alone that it serves.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from synapse.api.routes import App, Endpoint
from synapse.http.server import Router

if TYPE_CHECKING:
    from synapse.app._homeserver import Homeserver

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Row:
    """A class of endpoints: the names of the route table that it serves, and how to make one.

    With `app`, it does so in that application alone, where it goes before a row for all.
    """

    names: tuple[str, ...]
    make: Callable[[Homeserver], object]
    app: App | None = None


def mount(router: Router, hs: Homeserver, endpoints: Iterable[Endpoint]) -> None:
    """Makes what serves these endpoints and mounts it. Whatever has no row is named in the log."""
    wanted = {endpoint.name for endpoint in endpoints}
    for row in rows_for(hs.application.app):
        mine = wanted.intersection(row.names)
        if mine:
            router.mount_object(row.make(hs), only=mine)
            wanted -= mine
    if hs.application.app is App.FRONTEND_PROXY and hs.accounts.frontend_proxy is not None:
        router.mount_fallback(hs.accounts.frontend_proxy.forward)  # what it does not serve, the main process may
    if wanted:
        logger.error("Nothing serves the endpoints %s", ", ".join(sorted(wanted)))


def rows_for(app: App) -> list[Row]:
    """The rows that hold in an application, its own first."""
    return [row for row in ROWS if row.app is app] + [row for row in ROWS if row.app is None]


# -- the process, discovery ------------------------------------------------------------------------------------------


def _operation(hs: Homeserver) -> object:
    from synapse.rest.operation import Operation

    return Operation(hs.config.server.server_name, hs.drain)


def _versions(hs: Homeserver) -> object:
    from synapse.rest.client.versions import Versions

    return Versions(hs.config.client_baseurl)


# -- accounts, sessions, devices -------------------------------------------------------------------------------------


def _register(hs: Homeserver) -> object:
    from synapse.rest.client.sessions import Register

    return Register(hs.accounts.registration, hs.accounts.guest_upgrade, hs.accounts.ui_auth)


def _sessions(hs: Homeserver) -> object:
    from synapse.rest.client.sessions import Sessions

    accounts = hs.accounts
    return Sessions(accounts.login, accounts.devices, accounts.tokens, accounts.authenticator)


def _admin_register(hs: Homeserver) -> object:
    from synapse.rest.admin.register import AdminRegister

    return AdminRegister(hs.accounts.registration, hs.accounts.shared_secret)


def _devices(hs: Homeserver) -> object:
    from synapse.rest.client.devices import DeviceEndpoints

    return DeviceEndpoints(hs.accounts.devices, hs.accounts.ui_auth)


def _change_password(hs: Homeserver) -> object:
    from synapse.rest.client.password import ChangePassword

    return ChangePassword(hs.accounts.password_change, hs.accounts.ui_auth)


def _deactivate_account(hs: Homeserver) -> object:
    from synapse.rest.client.deactivation import DeactivateAccount

    accounts = hs.accounts
    return DeactivateAccount(accounts.deactivation, accounts.login, accounts.ui_auth)


def _admin_deactivate(hs: Homeserver) -> object:
    from synapse.rest.admin.deactivate import AdminDeactivate

    return AdminDeactivate(hs.accounts.deactivation)


def _capabilities(hs: Homeserver) -> object:
    from synapse.rest.client.discovery import Capabilities

    config, change = hs.config, hs.accounts.password_change
    return Capabilities(config.server.default_room_version, change.enabled, config.registration.fixed_profile_fields)


def _account_services(hs: Homeserver) -> object:
    from synapse.rest.client.discovery import AccountServices

    return AccountServices(hs.accounts.turn)


# -- profiles, settings, keys ----------------------------------------------------------------------------------------


def _profiles(hs: Homeserver) -> object:
    from synapse.rest.client.profile import ProfileEndpoints

    return ProfileEndpoints(hs.accounts.profiles)


def _user_directory(hs: Homeserver) -> object:
    from synapse.rest.client.user_directory import UserDirectoryEndpoints

    return UserDirectoryEndpoints(hs.accounts.user_directory)


def _account_data(hs: Homeserver) -> object:
    from synapse.rest.client.account_data import AccountDataEndpoints

    return AccountDataEndpoints(hs.accounts.account_data)


def _filters(hs: Homeserver) -> object:
    from synapse.rest.client.account_data import FilterEndpoints

    return FilterEndpoints(hs.accounts.filters)


def _push_rules(hs: Homeserver) -> object:
    from synapse.rest.client.pushrules import PushRuleEndpoints

    return PushRuleEndpoints(hs.accounts.push_rules)


def _pushers(hs: Homeserver) -> object:
    from synapse.rest.client.pushrules import PusherEndpoints

    return PusherEndpoints()


def _keys(hs: Homeserver) -> object:
    from synapse.rest.client.keys import KeyEndpoints

    return KeyEndpoints(hs.accounts.keys, hs.accounts.key_changes, hs.accounts.frontend_proxy)


def _presence_stub(hs: Homeserver) -> object:
    from synapse.rest.client.frontend_proxy import PresenceStub

    proxy = hs.accounts.frontend_proxy
    assert proxy is not None, "the configuration of a frontend_proxy names worker_main_http_uri"
    return PresenceStub(proxy)


def _to_device(hs: Homeserver) -> object:
    from synapse.rest.client.keys import ToDeviceEndpoints

    return ToDeviceEndpoints(hs.accounts.to_device)


# -- media, server keys ----------------------------------------------------------------------------------------------


def _media(hs: Homeserver) -> object:
    from synapse.rest.media.content import MediaContent

    return MediaContent(hs.accounts.media)


def _admin_media(hs: Homeserver) -> object:
    from synapse.rest.admin.media import AdminMedia

    return AdminMedia(hs.accounts.media_admin)


def _server_keys(hs: Homeserver) -> object:
    from synapse.rest.key.server import KeyServer

    return KeyServer(hs.accounts.server_keys)


def _federation_version(hs: Homeserver) -> object:
    from synapse.rest.federation.version import FederationVersion

    return FederationVersion()


def _third_party_bound(hs: Homeserver) -> object:
    from synapse.rest.federation.third_party import ThirdPartyBound

    return ThirdPartyBound(hs.rooms.third_party_invites)


# -- rooms: writing --------------------------------------------------------------------------------------------------


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

    return RoomAliases(hs.rooms.aliases, hs.config.server.server_name)


def _room_directory(hs: Homeserver) -> object:
    from synapse.rest.client.room_directory import RoomDirectory

    return RoomDirectory(hs.rooms.public_rooms)


# -- rooms: reading --------------------------------------------------------------------------------------------------


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


# -- finding things --------------------------------------------------------------------------------------------------


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


# -- all of them -----------------------------------------------------------------------------------------------------

ROWS: tuple[Row, ...] = (
    Row(("health", "metrics", "welcome"), _operation),
    Row(("versions", "well_known_client"), _versions),
    Row(("register", "register_available"), _register),
    Row(("login_flows", "login", "logout", "logout_all", "whoami"), _sessions),
    Row(("admin_register_nonce", "admin_register"), _admin_register),
    Row(("devices", "device_get", "device_update", "device_delete", "delete_devices"), _devices),
    Row(("account_password",), _change_password),
    Row(("account_deactivate",), _deactivate_account),
    Row(("admin_deactivate",), _admin_deactivate),
    Row(("capabilities",), _capabilities),
    Row(("turn_server", "threepids"), _account_services),
    Row(("profile_get", "profile_field_get", "profile_field_set", "profile_field_delete"), _profiles),
    Row(("user_directory_search",), _user_directory),
    Row(
        (
            *("account_data_get", "account_data_set", "room_account_data_get", "room_account_data_set"),
            *("account_data_delete", "room_account_data_delete"),
            *("room_tags", "room_tag_set", "room_tag_delete"),
        ),
        _account_data,
    ),
    Row(("filter_create", "filter_get"), _filters),
    Row(
        (
            *("push_rules", "push_rules_global", "push_rule_get", "push_rule_set", "push_rule_delete"),
            *("push_rule_enabled_get", "push_rule_enabled_set", "push_rule_actions_get", "push_rule_actions_set"),
        ),
        _push_rules,
    ),
    Row(("pushers", "pusher_set"), _pushers),
    Row(("keys_upload", "keys_query", "keys_changes", "keys_claim"), _keys),
    Row(("presence_get", "presence_set"), _presence_stub, App.FRONTEND_PROXY),
    Row(("send_to_device",), _to_device),
    Row(
        (
            *("media_upload", "media_create", "media_upload_to", "media_config", "media_config_authenticated"),
            *("media_download", "media_download_authenticated", "media_thumbnail", "media_thumbnail_authenticated"),
        ),
        _media,
    ),
    Row(("admin_purge_media_cache", "admin_room_media", "admin_quarantine_room_media"), _admin_media),
    Row(("third_party_bound",), _third_party_bound),
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
    Row(("server_keys",), _server_keys),
    Row(("federation_version",), _federation_version),
)
