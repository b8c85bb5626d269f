"""Rooms: making, joining, reading and writing them, finding them, and following what happens in them."""

from synapse.api.route_table import workers
from synapse.api.route_table.types import CLASSIC, CLIENT, EVENTS, INITIAL_SYNC, MIB, RELATIONS, SYNC, Auth, Endpoint

_C = "/_matrix/client/{version}"
_ROOM = f"{_C}/rooms/{{room_id}}"
_POST = ("POST",)
_GET = ("GET",)
_PUT = ("PUT",)

MEMBERSHIP = (
    Endpoint("room_create", f"{_C}/createRoom", _POST, CLASSIC, max_body=MIB, ratelimit="rc_room_creation"),
    Endpoint("room_upgrade", f"{_ROOM}/upgrade", _POST, CLIENT, ratelimit="rc_room_creation"),
    Endpoint("joined_rooms", f"{_C}/joined_rooms", _GET, CLIENT),
    Endpoint(
        "join",
        f"{_C}/join/{{room_id_or_alias}}",
        _POST,
        CLASSIC,
        (workers.JOIN,),
        guests=True,
        ratelimit="rc_joins.local",
    ),
    Endpoint(
        "room_join", f"{_ROOM}/join", _POST, CLASSIC, (workers.MEMBERSHIP,), guests=True, ratelimit="rc_joins.local"
    ),
    Endpoint("knock", f"{_C}/knock/{{room_id_or_alias}}", _POST, CLIENT, ratelimit="rc_joins.local"),
    Endpoint(
        "room_invite", f"{_ROOM}/invite", _POST, CLASSIC, (workers.MEMBERSHIP,), ratelimit="rc_invites.per_issuer"
    ),
    Endpoint("room_leave", f"{_ROOM}/leave", _POST, CLASSIC, (workers.MEMBERSHIP,), guests=True),
    Endpoint("room_kick", f"{_ROOM}/kick", _POST, CLASSIC, (workers.MEMBERSHIP,)),
    Endpoint("room_ban", f"{_ROOM}/ban", _POST, CLASSIC, (workers.MEMBERSHIP,)),
    Endpoint("room_unban", f"{_ROOM}/unban", _POST, CLASSIC, (workers.MEMBERSHIP,)),
    Endpoint("room_forget", f"{_ROOM}/forget", _POST, CLIENT),
)

WRITING = (
    Endpoint(
        "room_send",
        f"{_ROOM}/send/{{event_type}}/{{txn_id}}",
        _PUT,
        CLASSIC,
        (workers.SEND,),
        guests=True,
        ratelimit="rc_message",
    ),
    # Without a transaction ID, as the first clients sent: nobody can tell a repetition from a new event.
    Endpoint(
        "room_send_once",
        f"{_ROOM}/send/{{event_type}}",
        _POST,
        CLASSIC,
        (workers.SEND,),
        guests=True,
        ratelimit="rc_message",
    ),
    Endpoint("room_redact", f"{_ROOM}/redact/{{event_id}}/{{txn_id}}", _PUT, CLASSIC, ratelimit="rc_message"),
    Endpoint("room_redact_once", f"{_ROOM}/redact/{{event_id}}", _POST, CLASSIC, ratelimit="rc_message"),
    Endpoint(
        "room_state_set",
        f"{_ROOM}/state/{{event_type}}[/{{state_key}}]",
        _PUT,
        CLASSIC,
        (workers.STATE_EVENT,),
        guests=True,
        ratelimit="rc_message",
    ),
    Endpoint("room_typing", f"{_ROOM}/typing/{{user_id}}", _PUT, CLIENT),
    Endpoint("room_receipt", f"{_ROOM}/receipt/{{receipt_type}}/{{event_id}}", _POST, CLIENT),
    Endpoint("room_read_markers", f"{_ROOM}/read_markers", _POST, CLIENT),
)

READING = (
    Endpoint("room_state", f"{_ROOM}/state", _GET, CLASSIC, (workers.ROOM_STATE,), guests=True),
    Endpoint(
        "room_state_get",
        f"{_ROOM}/state/{{event_type}}[/{{state_key}}]",
        _GET,
        CLASSIC,
        (workers.STATE_EVENT,),
        guests=True,
    ),
    Endpoint("room_members", f"{_ROOM}/members", _GET, CLASSIC, (workers.MEMBERS,), guests=True),
    Endpoint("room_joined_members", f"{_ROOM}/joined_members", _GET, CLASSIC, (workers.JOINED_MEMBERS,)),
    Endpoint("room_messages", f"{_ROOM}/messages", _GET, CLASSIC, (workers.MESSAGES,), guests=True),
    Endpoint("room_context", f"{_ROOM}/context/{{event_id}}", _GET, CLASSIC, (workers.CONTEXT,), guests=True),
    Endpoint("room_event", f"{_ROOM}/event/{{event_id}}", _GET, CLIENT, guests=True),
    Endpoint("event", f"{_C}/events/{{event_id}}", _GET, EVENTS),
    Endpoint("room_relations", f"{_ROOM}/relations/{{event_id}}[/{{rel_type}}]", _GET, RELATIONS),
    Endpoint("room_relations_of_type", f"{_ROOM}/relations/{{event_id}}/{{rel_type}}/{{event_type}}", _GET, RELATIONS),
    Endpoint("room_threads", f"{_ROOM}/threads", _GET, RELATIONS),
    Endpoint("room_timestamp_to_event", f"{_ROOM}/timestamp_to_event", _GET, RELATIONS),
    Endpoint("room_aliases", f"{_ROOM}/aliases", _GET, CLIENT),
)

SYNCING = (
    Endpoint("sync", f"{_C}/sync", _GET, SYNC, (workers.SYNC,), guests=True, long_poll=True),
    Endpoint("events", f"{_C}/events", _GET, EVENTS, (workers.EVENTS,), guests=True, long_poll=True),
    Endpoint("initial_sync", f"{_C}/initialSync", _GET, INITIAL_SYNC, (workers.INITIAL_SYNC,)),
    Endpoint(
        "room_initial_sync", f"{_ROOM}/initialSync", _GET, INITIAL_SYNC, (workers.ROOM_INITIAL_SYNC,), guests=True
    ),
)

_SUMMARY = "im.nheko.summary"  # under its first names, a room's summary is what clients of today still ask for

FINDING = (
    Endpoint("search", f"{_C}/search", _POST, CLASSIC),
    Endpoint("room_hierarchy", f"{_ROOM}/hierarchy", _GET, ("v1",)),
    Endpoint("mutual_rooms", f"{_C}/mutual_rooms", _GET, ("v1",)),
    Endpoint("mutual_rooms_unstable", f"{_C}/uk.half-shot.msc2666/user/mutual_rooms", _GET, ("unstable",)),
    Endpoint("room_summary", f"{_C}/room_summary/{{room_id_or_alias}}", _GET, ("v1",), auth=Auth.OPTIONAL, guests=True),
    Endpoint(
        "room_summary_unstable",
        f"{_C}/{_SUMMARY}/summary/{{room_id_or_alias}}",
        _GET,
        ("unstable",),
        auth=Auth.OPTIONAL,
        guests=True,
    ),
    Endpoint(
        "room_summary_oldest",
        f"{_C}/{_SUMMARY}/rooms/{{room_id_or_alias}}/summary",
        _GET,
        ("unstable",),
        auth=Auth.OPTIONAL,
        guests=True,
    ),
)

REPORTING = tuple(
    Endpoint(name, path, _POST, CLIENT, ratelimit="rc_reports")
    for name, path in (
        ("report_event", f"{_ROOM}/report/{{event_id}}"),
        ("report_room", f"{_ROOM}/report"),
        ("report_user", f"{_C}/users/{{user_id}}/report"),
    )
)

DIRECTORY = (
    Endpoint(
        "public_rooms", f"{_C}/publicRooms", _GET, CLASSIC, (workers.PUBLIC_ROOMS,), auth=Auth.OPTIONAL, guests=True
    ),
    Endpoint("public_rooms_search", f"{_C}/publicRooms", _POST, CLASSIC, (workers.PUBLIC_ROOMS,), guests=True),
    Endpoint("alias_get", f"{_C}/directory/room/{{room_alias}}", _GET, CLIENT, auth=Auth.NONE),
    Endpoint("alias_set", f"{_C}/directory/room/{{room_alias}}", _PUT, CLIENT),
    Endpoint("alias_delete", f"{_C}/directory/room/{{room_alias}}", ("DELETE",), CLIENT),
    Endpoint("room_visibility_get", f"{_C}/directory/list/room/{{room_id}}", _GET, CLIENT, auth=Auth.NONE),
    Endpoint("room_visibility_set", f"{_C}/directory/list/room/{{room_id}}", _PUT, CLIENT),
)
