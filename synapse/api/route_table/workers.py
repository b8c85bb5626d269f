"""The routes of the workers, as administrators know them from workers.md and have them in their proxies.

Each expression stands here once, to the letter. The endpoints of the table name the route that carries them;
federation's expressions are routed whether or not each of their endpoints exists already. `v3`, and the authenticated
media paths, came after the description was written and go the way of their predecessors.
"""

from synapse.api.route_table.types import Affinity, App, Condition, WorkerRoute

_CLASSIC = ("api/v1", "r0", "unstable")
_V3 = ("v3",)


def _client_reader(
    path: str,
    *,
    methods: tuple[str, ...] = (),
    affinity: Affinity = Affinity.NONE,
    versions: tuple[str, ...] = _CLASSIC,
) -> WorkerRoute:
    pattern = "^/_matrix/client/{versions}/" + path
    return WorkerRoute(App.CLIENT_READER, pattern, versions, _V3, methods=methods, affinity=affinity)


def _synchrotron(path: str, versions: tuple[str, ...]) -> WorkerRoute:
    pattern = "^/_matrix/client/{versions}/" + path
    return WorkerRoute(App.SYNCHROTRON, pattern, versions, _V3, affinity=Affinity.USER)


def _event_creator(path: str) -> WorkerRoute:
    return WorkerRoute(App.EVENT_CREATOR, "^/_matrix/client/{versions}/" + path, _CLASSIC, _V3)


def _federation(path: str, affinity: Affinity = Affinity.NONE) -> WorkerRoute:
    return WorkerRoute(App.FEDERATION_READER, "^/_matrix/" + path, affinity=affinity)


SYNC = _synchrotron("sync$", ("v2_alpha", "r0"))
EVENTS = _synchrotron("events$", ("api/v1", "v2_alpha", "r0"))
INITIAL_SYNC = _synchrotron("initialSync$", ("api/v1", "r0"))
ROOM_INITIAL_SYNC = _synchrotron("rooms/[^/]+/initialSync$", ("api/v1", "r0"))

FEDERATION = (
    _federation("federation/v1/event/"),
    _federation("federation/v1/state/"),
    _federation("federation/v1/state_ids/"),
    _federation("federation/v1/backfill/"),
    _federation("federation/v1/get_missing_events/"),
    _federation("federation/v1/publicRooms"),
    _federation("federation/v1/query/"),
    _federation("federation/v1/make_join/"),
    _federation("federation/v1/make_leave/"),
    _federation("federation/v1/send_join/"),
    _federation("federation/v2/send_join/"),
    _federation("federation/v1/send_leave/"),
    _federation("federation/v2/send_leave/"),
    _federation("federation/v1/invite/"),
    _federation("federation/v2/invite/"),
    _federation("federation/v1/query_auth/"),
    _federation("federation/v1/event_auth/"),
    _federation("federation/v1/exchange_third_party_invite/"),
    _federation("federation/v1/send/", Affinity.ONE),
    _federation("key/v2/query"),
)

MEDIA = WorkerRoute(App.MEDIA_REPOSITORY, "^/_matrix/media/")
MEDIA_AUTHENTICATED = WorkerRoute(App.MEDIA_REPOSITORY, "^/_matrix/client/v1/media/", described=False)
PURGE_MEDIA_CACHE = WorkerRoute(App.MEDIA_REPOSITORY, "^/_synapse/admin/v1/purge_media_cache$")
ROOM_MEDIA = WorkerRoute(App.MEDIA_REPOSITORY, "^/_synapse/admin/v1/room/.*/media$")
QUARANTINE_MEDIA = WorkerRoute(App.MEDIA_REPOSITORY, "^/_synapse/admin/v1/quarantine_media/.*$")

PUBLIC_ROOMS = _client_reader("publicRooms$")
JOINED_MEMBERS = _client_reader("rooms/.*/joined_members$")
CONTEXT = _client_reader("rooms/.*/context/.*$")
MEMBERS = _client_reader("rooms/.*/members$")
ROOM_STATE = _client_reader("rooms/.*/state$")
LOGIN = _client_reader("login$")
THREEPIDS = _client_reader("account/3pid$")
KEYS_QUERY = _client_reader("keys/query$")
KEYS_CHANGES = _client_reader("keys/changes$")
VERSIONS = WorkerRoute(App.CLIENT_READER, "^/_matrix/client/versions$")
TURN_SERVER = _client_reader("voip/turnServer$")
PUSH_RULES = _client_reader("pushrules/.*$", methods=("GET",))
REGISTER = _client_reader("register$", versions=("r0", "unstable"), affinity=Affinity.ONE)
MESSAGES = _client_reader("rooms/.*/messages$", affinity=Affinity.ROOM)

USER_DIRECTORY = WorkerRoute(App.USER_DIR, "^/_matrix/client/{versions}/user_directory/search$", _CLASSIC, _V3)

KEYS_UPLOAD = WorkerRoute(App.FRONTEND_PROXY, "^/_matrix/client/{versions}/keys/upload", _CLASSIC, _V3)
PRESENCE_STATUS = WorkerRoute(
    App.FRONTEND_PROXY,
    "^/_matrix/client/{versions}/presence/[^/]+/status",
    _CLASSIC,
    _V3,
    when=Condition.PRESENCE_OFF,
)

SEND = _event_creator("rooms/.*/send")
STATE_EVENT = _event_creator("rooms/.*/state/")
MEMBERSHIP = _event_creator("rooms/.*/(join|invite|leave|ban|unban|kick)$")
JOIN = _event_creator("join/")
PROFILE = _event_creator("profile/")

# "redact" is the main process's, though the transaction at its end may be called "join" or "members".
REDACT = WorkerRoute(App.HOMESERVER, "^/_matrix/client/{versions}/rooms/[^/]+/redact/", _CLASSIC, _V3, described=False)
# Likewise the type of a relation or of an event, at the end of a path, may be any word.
RELATIONS = WorkerRoute(
    App.HOMESERVER, "^/_matrix/client/{versions}/rooms/[^/]+/relations/", _CLASSIC, _V3, described=False
)

# A path may meet several expressions, as ".*" crosses slashes. The first that meets it decides; the creating routes
# come before the reading ones because what follows them in a path is the client's free choice.
WORKER_ROUTES: tuple[WorkerRoute, ...] = (
    SYNC,
    EVENTS,
    INITIAL_SYNC,
    ROOM_INITIAL_SYNC,
    *FEDERATION,
    MEDIA,
    MEDIA_AUTHENTICATED,
    PURGE_MEDIA_CACHE,
    ROOM_MEDIA,
    QUARANTINE_MEDIA,
    REDACT,
    RELATIONS,
    KEYS_UPLOAD,
    PRESENCE_STATUS,
    SEND,
    STATE_EVENT,
    JOIN,
    PROFILE,
    CONTEXT,
    MEMBERSHIP,
    PUBLIC_ROOMS,
    JOINED_MEMBERS,
    MEMBERS,
    ROOM_STATE,
    LOGIN,
    THREEPIDS,
    KEYS_QUERY,
    KEYS_CHANGES,
    VERSIONS,
    TURN_SERVER,
    PUSH_RULES,
    REGISTER,
    MESSAGES,
    USER_DIRECTORY,
)
