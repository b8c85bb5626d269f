"""Media, administration, keys and federation basics, and the paths that operate the process itself."""

from synapse.api.route_table import workers
from synapse.api.route_table.types import MEDIA as MEDIA_VERSIONS
from synapse.api.route_table.types import Auth, Endpoint, WorkerRoute

_GET = ("GET",)
_POST = ("POST",)
_ADMIN = "/_synapse/admin/v1"


def _media(
    name: str,
    path: str,
    methods: tuple[str, ...] = _GET,
    auth: Auth = Auth.USER,
    *,
    versions: tuple[str, ...] = MEDIA_VERSIONS,
    streams_body: bool = False,
    ratelimit: str | None = None,
) -> Endpoint:
    return Endpoint(
        name,
        "/_matrix/media/{version}/" + path,
        methods,
        versions,
        (workers.MEDIA,),
        auth=auth,
        resource="media",
        streams_body=streams_body,
        ratelimit=ratelimit,
    )


def _authenticated_media(name: str, path: str) -> Endpoint:
    return Endpoint(
        name,
        "/_matrix/client/{version}/media/" + path,
        _GET,
        ("v1",),
        (workers.MEDIA_AUTHENTICATED,),
        guests=True,
        resource="media",
    )


def _admin_media(name: str, path: str, methods: tuple[str, ...], route: WorkerRoute) -> Endpoint:
    return Endpoint(name, f"{_ADMIN}/{path}", methods, routes=(route,), auth=Auth.ADMIN, resource="media")


_FILE = "{server_name}/{media_id}"

MEDIA = (
    _media("media_upload", "upload", _POST, streams_body=True),
    _media("media_create", "create", _POST, versions=("v1", "v3"), ratelimit="rc_media_create"),
    _media("media_upload_to", f"upload/{_FILE}", ("PUT",), streams_body=True),
    _media("media_download", f"download/{_FILE}[/{{file_name}}]", auth=Auth.NONE),
    _media("media_thumbnail", f"thumbnail/{_FILE}", auth=Auth.NONE),
    _media("media_config", "config"),
    _authenticated_media("media_download_authenticated", f"download/{_FILE}[/{{file_name}}]"),
    _authenticated_media("media_thumbnail_authenticated", f"thumbnail/{_FILE}"),
    _authenticated_media("media_config_authenticated", "config"),
    _admin_media("admin_purge_media_cache", "purge_media_cache", _POST, workers.PURGE_MEDIA_CACHE),
    _admin_media("admin_room_media", "room/{room_id}/media", _GET, workers.ROOM_MEDIA),
    _admin_media("admin_quarantine_room_media", "quarantine_media/{room_id}", _POST, workers.QUARANTINE_MEDIA),
)

_REPORTS = tuple(
    Endpoint(name, f"{_ADMIN}/{path}", (method,), auth=Auth.ADMIN)
    for kind in ("event", "room", "user")
    for name, path, method in (
        (f"admin_{kind}_reports", f"{kind}_reports", "GET"),
        (f"admin_{kind}_report_get", f"{kind}_reports/{{report_id}}", "GET"),
        (f"admin_{kind}_report_delete", f"{kind}_reports/{{report_id}}", "DELETE"),
    )
)

_TOKENS = f"{_ADMIN}/registration_tokens"

_REGISTRATION_TOKENS = (
    Endpoint("admin_registration_tokens", _TOKENS, _GET, auth=Auth.ADMIN),
    Endpoint("admin_registration_token_new", f"{_TOKENS}/new", _POST, auth=Auth.ADMIN),
    Endpoint("admin_registration_token_get", f"{_TOKENS}/{{token}}", _GET, auth=Auth.ADMIN),
    Endpoint("admin_registration_token_set", f"{_TOKENS}/{{token}}", ("PUT",), auth=Auth.ADMIN),
    Endpoint("admin_registration_token_delete", f"{_TOKENS}/{{token}}", ("DELETE",), auth=Auth.ADMIN),
)

ADMIN = (
    *_REPORTS,
    *_REGISTRATION_TOKENS,
    Endpoint(
        "admin_allow_cross_signing_replacement",
        f"{_ADMIN}/users/{{user_id}}/_allow_cross_signing_replacement_without_uia",
        _POST,
        auth=Auth.ADMIN,
    ),
    Endpoint("admin_deactivate", f"{_ADMIN}/deactivate/{{user_id}}", _POST, auth=Auth.ADMIN),
    # Whoever knows the shared registration secret proves it with a MAC over the nonce.
    Endpoint("admin_register_nonce", f"{_ADMIN}/register", _GET, auth=Auth.NONE),
    Endpoint("admin_register", f"{_ADMIN}/register", _POST, auth=Auth.NONE),
)

SERVER = (
    Endpoint("server_keys", "/_matrix/key/v2/server[/{key_id}]", _GET, auth=Auth.NONE, resource="keys"),
    Endpoint("federation_version", "/_matrix/federation/v1/version", _GET, auth=Auth.NONE, resource="federation"),
    # Whoever was handed a token asks whose it is: any service, which signs nothing.
    Endpoint("openid_userinfo", "/_matrix/federation/v1/openid/userinfo", _GET, auth=Auth.NONE, resource="openid"),
    # Identity servers are no homeservers: they sign nothing here, and what they tell is proved by the invitations. So
    # anybody may have other servers asked.
    Endpoint(
        "third_party_bound",
        "/_matrix/federation/v1/3pid/onbind",
        ("PUT", "POST"),
        auth=Auth.NONE,
        ratelimit="rc_third_party_invite",
        resource="federation",
    ),
    Endpoint("health", "/health", _GET, auth=Auth.NONE, resource="health"),
    Endpoint("metrics", "/_synapse/metrics", _GET, auth=Auth.NONE, resource="metrics"),
    Endpoint("welcome", "/_matrix/static[/]", _GET, auth=Auth.NONE, resource="static"),
)
