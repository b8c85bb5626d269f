"""Account data: what clients keep on the server for themselves, and the tags of rooms, which are a piece of it.

Written by the main process, since every change has a position in the stream `account_data`. The server's own pieces,
the push rules and the marker of what has been read, have endpoints of their own and cannot be set here.

Client-server API, "Client Config" and "Room Tagging".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
import orjson

from synapse.api.constants import AccountDataTypes
from synapse.api.errors import Codes, MatrixError, bad_json, invalid_param, not_found
from synapse.handlers.push_rules import CACHE as PROGRAMS
from synapse.replication.calls import Call
from synapse.storage.account_data import AccountDatum, TooManyTags

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from synapse.handlers.positions import StreamWriter
    from synapse.replication.calls import MainProcess
    from synapse.storage.account_data import AccountDataStore

MAX_TYPE_BYTES: Final = 255
MAX_TAG_BYTES: Final = 255
MAX_TAGS: Final = 100
SERVERS_OWN: Final = frozenset({AccountDataTypes.FULLY_READ, AccountDataTypes.PUSH_RULES})


class Setting(msgspec.Struct, frozen=True):
    """A piece of account data to be written; `room_id` "" is global, `content` the JSON text of an object."""

    user_id: str
    room_id: str
    type: str
    content: str


class Deleting(msgspec.Struct, frozen=True):
    """A piece of account data to be deleted; `room_id` "" is global."""

    user_id: str
    room_id: str
    type: str


class Tagging(msgspec.Struct, frozen=True):
    """A tag to be set (`content` its JSON text) or taken away (None)."""

    user_id: str
    room_id: str
    tag: str
    content: str | None


SET: Final = Call("account_data.set", Setting, type(None))
DELETE: Final = Call("account_data.delete", Deleting, type(None))
TAG: Final = Call("account_data.tag", Tagging, type(None))


class AccountData:
    """Reads account data anywhere, and has the main process write it.

    :param invalidate: has every process forget keys of a cache.
    :param push_rules: gives a user's rules as the content of m.push_rules, which can be read like other account data.
    """

    def __init__(
        self,
        store: AccountDataStore,
        stream: StreamWriter,
        main: MainProcess,
        invalidate: Callable[[str, Iterable[str]], Awaitable[None]],
        push_rules: Callable[[str], Awaitable[dict[str, Any]]],
    ) -> None:
        self._store = store
        self._stream = stream
        self._main = main
        self._invalidate = invalidate
        self._push_rules = push_rules
        main.expose(SET, self._set)
        main.expose(DELETE, self._delete)
        main.expose(TAG, self._tag)

    async def get(self, user_id: str, room_id: str, data_type: str) -> bytes:
        """The content as JSON; `room_id` "" for global data. Raises 404 M_NOT_FOUND."""
        if not room_id and data_type == AccountDataTypes.PUSH_RULES:
            return orjson.dumps(await self._push_rules(user_id))
        content = await self._store.get(user_id, room_id, _checked_type(data_type))
        if content is None:
            raise not_found("There is no account data of that type.")
        return content.encode()

    async def set(self, user_id: str, room_id: str, data_type: str, content: dict[str, Any]) -> None:
        """Raises 405 M_BAD_JSON for the server's own types, 400 M_INVALID_PARAM."""
        _check_is_clients(data_type)
        if room_id and data_type == AccountDataTypes.TAG:
            _check_tags(content)
        await self.write(user_id, room_id, _checked_type(data_type), content)

    async def delete(self, user_id: str, room_id: str, data_type: str) -> None:
        """That there is none is no error. Raises 405 M_BAD_JSON for the server's own types, 400 M_INVALID_PARAM."""
        _check_is_clients(data_type)
        await self._main(DELETE, Deleting(user_id, room_id, _checked_type(data_type)))

    async def write(self, user_id: str, room_id: str, data_type: str, content: dict[str, Any]) -> None:
        """Like `set`, for the server itself: without checks."""
        await self._main(SET, Setting(user_id, room_id, data_type, orjson.dumps(content).decode()))

    async def tags(self, user_id: str, room_id: str) -> dict[str, Any]:
        """The tags of a room with their contents."""
        content = await self._store.get(user_id, room_id, AccountDataTypes.TAG)
        tags = {} if content is None else orjson.loads(content).get("tags")
        return tags if isinstance(tags, dict) else {}

    async def set_tag(self, user_id: str, room_id: str, tag: str, content: dict[str, Any]) -> None:
        """Raises 400 M_INVALID_PARAM or M_BAD_JSON."""
        _check_tag(tag, content)
        await self._main(TAG, Tagging(user_id, room_id, tag, orjson.dumps(content).decode()))

    async def delete_tag(self, user_id: str, room_id: str, tag: str) -> None:
        """That there is no such tag is no error."""
        _check_tag(tag, {})
        await self._main(TAG, Tagging(user_id, room_id, tag, None))

    async def _set(self, setting: Setting) -> None:
        datum = AccountDatum(setting.room_id, setting.type, setting.content)
        await self._stream.append(
            lambda position: self._store.put(setting.user_id, datum, position), lambda _: [setting.user_id]
        )
        await self._changed(setting.user_id, setting.room_id, setting.type)

    async def _delete(self, deleting: Deleting) -> None:
        user_id, room_id, data_type = deleting.user_id, deleting.room_id, deleting.type
        await self._stream.append(
            lambda position: self._store.delete(user_id, room_id, data_type, position),
            lambda deleted: [user_id] if deleted else [],
        )
        await self._changed(user_id, room_id, data_type)

    async def _changed(self, user_id: str, room_id: str, data_type: str) -> None:
        if not room_id and data_type == AccountDataTypes.IGNORED_USER_LIST:
            await self._invalidate(PROGRAMS, [user_id])

    async def _tag(self, tagging: Tagging) -> None:
        user_id, room_id, tag, content = tagging.user_id, tagging.room_id, tagging.tag, tagging.content
        try:
            await self._stream.append(
                lambda position: self._store.put_tag(user_id, room_id, tag, content, MAX_TAGS, position),
                lambda changed: [user_id] if changed else [],
            )
        except TooManyTags:
            raise _too_many_tags() from None


def _check_is_clients(data_type: str) -> None:
    if data_type in SERVERS_OWN:
        raise MatrixError(405, Codes.BAD_JSON, f"Account data of the type {data_type} cannot be changed here.")


def _checked_type(data_type: str) -> str:
    if len(data_type.encode("utf-8", "replace")) > MAX_TYPE_BYTES:
        raise invalid_param(f"A type of account data has at most {MAX_TYPE_BYTES} bytes.")
    return data_type


def _check_tags(content: dict[str, Any]) -> None:
    """Raises 400 for what a room's m.tag cannot be; it may be set as a whole, too."""
    tags = content.get("tags", {})
    if not isinstance(tags, dict):
        raise bad_json("The key 'tags' must be an object.")
    if len(tags) > MAX_TAGS:
        raise _too_many_tags()
    for tag, value in tags.items():
        if not isinstance(value, dict):
            raise bad_json("Each tag must be an object.")
        _check_tag(tag, value)


def _check_tag(tag: str, content: dict[str, Any]) -> None:
    """Client-server API, "Room Tagging": how long a name may be, and what orders the rooms of a tag."""
    if len(tag.encode("utf-8", "replace")) > MAX_TAG_BYTES:
        raise invalid_param(f"A tag has at most {MAX_TAG_BYTES} bytes.")
    order = content.get("order", 0)
    if isinstance(order, bool) or not isinstance(order, (int, float)):
        raise bad_json("The key 'order' of a tag must be a number.")
    if not 0 <= order <= 1:
        raise invalid_param("The key 'order' of a tag must be a number from 0 to 1.")


def _too_many_tags() -> MatrixError:
    return invalid_param(f"A room may have {MAX_TAGS} tags at most.")
