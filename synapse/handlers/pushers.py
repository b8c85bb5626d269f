"""The pushers of users: making, changing, listing and deleting them. That something is sent to them is
`synapse.handlers.push_sending`'s matter.

Client-server API, "Push notifications", "Pushers".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit

import orjson

from synapse.api.errors import invalid_param, missing_param, unknown_token
from synapse.storage.pushers import Key, Pusher, Session
from synapse.util.storable import problem_of

if TYPE_CHECKING:
    from synapse.http.request import Requester
    from synapse.storage.pushers import PusherStore
    from synapse.util.clock import Clock

MAX_PUSHKEY: Final = 512  # bytes
MAX_APP_ID: Final = 64  # characters
MAX_NAME: Final = 512  # characters
MAX_DATA: Final = 8192  # bytes
MAX_PUSHERS: Final = 100  # of a user
MAX_URL: Final = 2048
PATH: Final = "/_matrix/push/v1/notify"


class Wanted(NamedTuple):
    """A pusher as its user describes it."""

    kind: str
    app_id: str
    pushkey: str
    app_display_name: str
    device_display_name: str
    profile_tag: str | None
    lang: str
    data: dict[str, Any]


class Pushers:
    """In the main process.

    :param present: how far the events stream has got.
    """

    def __init__(self, store: PusherStore, present: Callable[[], int], clock: Clock) -> None:
        self._store = store
        self._present = present
        self._clock = clock

    async def of_user(self, user_id: str) -> list[dict[str, Any]]:
        """As `GET /pushers` lists them."""
        return [_listed(pusher) for pusher in await self._store.of_user(user_id)]

    async def set(self, user: Requester, wanted: Wanted, *, append: bool) -> None:
        """Makes a pusher, or changes the user's that has this app id and pushkey; without `append`, other users' that
        have them go.

        Raises 400 M_INVALID_PARAM, M_MISSING_PARAM; 401 M_UNKNOWN_TOKEN where the session has just ended.
        """
        _check(wanted)
        key = Key(user.user_id, wanted.app_id, wanted.pushkey)
        pusher = Pusher(
            *(key, wanted.app_display_name, wanted.device_display_name, wanted.profile_tag, wanted.lang),
            *(orjson.dumps(wanted.data).decode(), int(self._clock.seconds() * 1000)),
        )
        session = Session(user.device_id, user.token_id)
        made = await self._store.set(pusher, session, self._present(), append=append, limit=MAX_PUSHERS)
        if made is None:
            raise unknown_token()
        if not made:
            raise invalid_param(f"An account has at most {MAX_PUSHERS} pushers; please delete those not in use.")

    async def delete(self, user_id: str, app_id: str, pushkey: str) -> None:
        """That there is none is no error. Raises 400 M_INVALID_PARAM."""
        _check_key(app_id, pushkey)
        await self._store.delete(Key(user_id, app_id, pushkey))


def _listed(pusher: Pusher) -> dict[str, Any]:
    listed: dict[str, Any] = {
        "pushkey": pusher.key.pushkey,
        "kind": "http",
        "app_id": pusher.key.app_id,
        "app_display_name": pusher.app_display_name,
        "device_display_name": pusher.device_display_name,
        "lang": pusher.lang,
        "data": orjson.loads(pusher.data),
    }
    if pusher.profile_tag is not None:
        listed["profile_tag"] = pusher.profile_tag
    return listed


def _check(wanted: Wanted) -> None:
    if wanted.kind == "email":
        raise invalid_param("This server does not send notifications by e-mail; a pusher's 'kind' can be 'http'.")
    if wanted.kind != "http":
        raise invalid_param("The 'kind' must be 'http', or null to delete a pusher.")
    _check_key(wanted.app_id, wanted.pushkey)
    for name in ("app_display_name", "device_display_name", "profile_tag", "lang"):
        value = getattr(wanted, name)
        if value is not None and (len(value) > MAX_NAME or "\x00" in value):
            raise invalid_param(f"The '{name}' must have at most {MAX_NAME} characters, and no NUL.")
    _check_data(wanted.data)


def _check_key(app_id: str, pushkey: str) -> None:
    if not 0 < len(app_id) <= MAX_APP_ID or "\x00" in app_id:
        raise invalid_param(f"The 'app_id' must have 1 to {MAX_APP_ID} characters, and no NUL.")
    if not 0 < len(pushkey.encode()) <= MAX_PUSHKEY or "\x00" in pushkey:
        raise invalid_param(f"The 'pushkey' must have 1 to {MAX_PUSHKEY} bytes, and no NUL.")


def _check_data(data: dict[str, Any]) -> None:
    problem = problem_of(data)
    if problem is not None:
        raise invalid_param(f"The 'data' cannot be kept: {problem}.")
    if len(orjson.dumps(data)) > MAX_DATA:
        raise invalid_param(f"The 'data' must have at most {MAX_DATA} bytes.")
    if "url" not in data:
        raise missing_param("data.url")
    if not isinstance(data["url"], str) or not _is_gateway(data["url"]):
        raise invalid_param(f"The 'data.url' must be an HTTPS URL with the path {PATH}.")
    # There may be gateways with formats of their own, which are handed on to them; it is for `event_id_only` to leave
    # anything out.
    if not isinstance(data.get("format", ""), str):
        raise invalid_param("The 'data.format' must be a string.")


def _is_gateway(url: str) -> bool:
    """Whether it is a URL of a push gateway. Plain HTTP is let through for gateways in the same network, which the
    administrator has to allow by `ip_range_whitelist`."""
    if len(url) > MAX_URL or not url.isascii() or not url.isprintable() or " " in url or "#" in url:
        return False
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    if parts.username is not None or parts.password is not None or port == 0:
        return False
    return parts.scheme in ("https", "http") and bool(parts.hostname) and parts.path == PATH
