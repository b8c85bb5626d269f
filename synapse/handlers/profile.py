"""Profiles: display name, avatar, and any further fields, read by all and changed by their owner.

A new name or picture is also written into the user's membership of every room that it is in; how that is done is known
to the rooms' handlers, which are handed in as `propagate`. Profiles of other servers' users are asked for there
(`elsewhere`).

Client-server API, "Profiles".
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from synapse.api.errors import (
    Codes,
    MatrixError,
    bad_json,
    forbidden,
    invalid_param,
    missing_param,
    missing_token,
    not_found,
)
from synapse.api.identifiers import parse_user_id
from synapse.storage.profiles import ProfileFull
from synapse.util.storable import problem_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from synapse.config.profiles import ProfilesConfig
    from synapse.http.server import Requester
    from synapse.storage.profiles import ProfileStore

MAX_DISPLAY_NAME: Final = 256  # characters
MAX_AVATAR_URL: Final = 1000  # characters
MAX_KEY_BYTES: Final = 255
MAX_PROFILE_BYTES: Final = 65_536

IN_ROOMS: Final = frozenset({"displayname", "avatar_url"})
# Custom fields follow the Common Namespaced Identifier Grammar (appendices), and have a namespace.
_KEY: Final = re.compile(r"avatar_url|displayname|[a-z][a-z0-9_-]*(\.[a-z0-9_-]+)+", re.ASCII)


class Profiles:
    """Reads and changes profiles.

    :param propagate: writes the user's name and picture into the rooms that it has joined.
    :param fixed: fields that users cannot change.
    :param elsewhere: the profile of another server's user; raises MatrixError. None where nobody asks for those.
    """

    def __init__(
        self,
        store: ProfileStore,
        server_name: str,
        propagate: Callable[[str], Awaitable[None]],
        config: ProfilesConfig,
        fixed: frozenset[str] = frozenset(),
        elsewhere: Callable[[str], Awaitable[dict[str, Any]]] | None = None,
    ) -> None:
        self._store = store
        self._server_name = server_name
        self._propagate = propagate
        self._elsewhere = elsewhere
        self._config = config
        self._fixed = fixed

    async def check_may_look(self, requester: Requester | None, user_id: str) -> None:
        """Raises 401 M_MISSING_TOKEN, 403 M_FORBIDDEN where profiles are not for everybody.

        Those who do not exist are answered for like those who are not shown: "Profiles", "Server behaviour".
        """
        needs_room = self._config.limit_profile_requests_to_users_who_share_rooms
        if requester is None:
            if needs_room or self._config.require_auth_for_profile_requests:
                raise missing_token("This server shows profiles only to those who are logged in.")
        elif needs_room and not requester.is_admin and requester.user_id != user_id:
            parse_user_id(user_id)
            if not await self._store.is_visible(user_id, requester.user_id):
                raise forbidden("This server shows you the profiles of those who you share a room with.")

    async def get(self, user_id: str) -> dict[str, Any]:
        """The whole profile; raises 404 M_NOT_FOUND where there is no such user, and what their server answers."""
        if parse_user_id(user_id).domain != self._server_name:
            if self._elsewhere is None:
                raise not_found("Profiles of other servers' users are not looked at here.")
            return await self._elsewhere(user_id)
        profile = await self._store.get(user_id)
        if profile is None:
            raise not_found("There is no such user.")
        return profile.as_json()

    async def get_field(self, user_id: str, field: str) -> dict[str, Any]:
        """`{field: value}`; raises 404 M_NOT_FOUND where it is not set, or cannot be.

        Name and picture are fields of every profile: clients have always got an empty object where they are not set.
        """
        profile = await self.get(user_id)
        if field not in profile:
            if field in IN_ROOMS:
                return {}
            raise not_found(f"The profile has no field '{field:.100}'.")
        return {field: profile[field]}

    async def set_field(self, user_id: str, field: str, body: dict[str, Any], *, by_admin: bool = False) -> None:
        """Sets a field of one's own profile, or of somebody's (`by_admin`). Empty names and pictures count as none.

        Raises 400 M_MISSING_PARAM, M_INVALID_PARAM, M_BAD_JSON, M_KEY_TOO_LARGE or M_PROFILE_TOO_LARGE; 403 for what
        users cannot change here.
        """
        if not by_admin:
            self._check_changeable(field)
        if field not in body:
            raise missing_param(field)
        value = checked_value(field, body[field])
        try:
            changed = await self._store.set_field(user_id, field, value, MAX_PROFILE_BYTES)
        except ProfileFull:
            message = f"A profile must stay below {MAX_PROFILE_BYTES} bytes of JSON."
            raise MatrixError(400, Codes.PROFILE_TOO_LARGE, message) from None
        await self._changed(user_id, field, changed)

    async def delete_field(self, user_id: str, field: str) -> None:
        """Deletes a field of one's own profile; that it is not there is no error. Raises 400, 403."""
        self._check_changeable(field)
        await self._changed(user_id, field, await self._store.delete_field(user_id, field))

    def _check_changeable(self, field: str) -> None:
        check_key(field)
        if field in self._fixed:
            raise forbidden(f"This server does not let its users change '{field}'.")

    async def _changed(self, user_id: str, field: str, changed: bool) -> None:
        if changed and field in IN_ROOMS:
            await self._propagate(user_id)


def check_owner(requester_id: str, user_id: str) -> None:
    """Raises 403 M_FORBIDDEN for anything of another user."""
    if requester_id != user_id:
        raise forbidden("You may only do this for yourself.")


def check_key(field: str) -> None:
    """Raises 400 for what cannot be the name of a field."""
    if len(field.encode("utf-8", "replace")) > MAX_KEY_BYTES:
        raise MatrixError(400, Codes.KEY_TOO_LARGE, f"A profile field's name has at most {MAX_KEY_BYTES} bytes.")
    if _KEY.fullmatch(field) is None:
        raise invalid_param(
            "A profile field is 'displayname', 'avatar_url', 'm.tz' or a name like 'com.example.field'."
        )


def checked_value(field: str, value: object) -> object:
    """What to store; raises 400 for a value that the field cannot have."""
    if field in IN_ROOMS or field == "m.tz":
        if not isinstance(value, str) and (value is not None or field == "m.tz"):
            raise bad_json(f"The value of '{field}' must be a string.")
        limit = MAX_AVATAR_URL if field == "avatar_url" else MAX_DISPLAY_NAME
        if value is not None and len(value) > limit:
            raise invalid_param(f"The value of '{field}' has at most {limit} characters.")
    if (problem := problem_of(value)) is not None:
        raise invalid_param(f"The value of '{field}' cannot be stored: {problem}.")
    return value or None if field in IN_ROOMS else value
