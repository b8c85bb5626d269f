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


class Tagging(msgspec.Struct, frozen=True):
    """A tag to be set (`content` its JSON text) or taken away (None)."""

    user_id: str
    room_id: str
    tag: str
    content: str | None


SET: Final = Call("account_data.set", Setting, type(None))
TAG: Final = Call("account_data.tag", Tagging, type(None))


class AccountData:
    """Reads account data anywhere, and has the main process write it.

    :param invalidate: has every process forget keys of a cache.
    """

    def __init__(
        self,
        store: AccountDataStore,
        stream: StreamWriter,
        main: MainProcess,
        invalidate: Callable[[str, Iterable[str]], Awaitable[None]],
    ) -> None:
        self._store = store
        self._stream = stream
        self._main = main
        self._invalidate = invalidate
        main.expose(SET, self._set)
        main.expose(TAG, self._tag)

    async def get(self, user_id: str, room_id: str, data_type: str) -> bytes:
        """The content as JSON; `room_id` "" for global data. Raises 404 M_NOT_FOUND."""
        content = await self._store.get(user_id, room_id, _checked_type(data_type))
        if content is None:
            raise not_found("There is no account data of that type.")
        return content.encode()

    async def set(self, user_id: str, room_id: str, data_type: str, content: dict[str, Any]) -> None:
        """Raises 405 M_BAD_JSON for the server's own types, 400 M_INVALID_PARAM."""
        if data_type in SERVERS_OWN:
            raise MatrixError(405, Codes.BAD_JSON, f"Account data of the type {data_type} cannot be set here.")
        await self.write(user_id, room_id, _checked_type(data_type), content)

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
        order = content.get("order")
        if order is not None and (isinstance(order, bool) or not isinstance(order, (int, float))):
            raise bad_json("The key 'order' of a tag must be a number.")
        await self._main(TAG, Tagging(user_id, room_id, _checked_tag(tag), orjson.dumps(content).decode()))

    async def delete_tag(self, user_id: str, room_id: str, tag: str) -> None:
        """That there is no such tag is no error."""
        await self._main(TAG, Tagging(user_id, room_id, _checked_tag(tag), None))

    async def _set(self, setting: Setting) -> None:
        datum = AccountDatum(setting.room_id, setting.type, setting.content)
        await self._stream.append(
            lambda position: self._store.put(setting.user_id, datum, position), lambda _: [setting.user_id]
        )
        if not setting.room_id and setting.type == AccountDataTypes.IGNORED_USER_LIST:
            await self._invalidate(PROGRAMS, [setting.user_id])

    async def _tag(self, tagging: Tagging) -> None:
        user_id, room_id, tag, content = tagging.user_id, tagging.room_id, tagging.tag, tagging.content
        try:
            await self._stream.append(
                lambda position: self._store.put_tag(user_id, room_id, tag, content, MAX_TAGS, position),
                lambda changed: [user_id] if changed else [],
            )
        except TooManyTags:
            raise invalid_param(f"A room may have {MAX_TAGS} tags at most.") from None


def _checked_type(data_type: str) -> str:
    if len(data_type.encode("utf-8", "replace")) > MAX_TYPE_BYTES:
        raise invalid_param(f"A type of account data has at most {MAX_TYPE_BYTES} bytes.")
    return data_type


def _checked_tag(tag: str) -> str:
    if len(tag.encode("utf-8", "replace")) > MAX_TAG_BYTES:
        raise invalid_param(f"A tag has at most {MAX_TAG_BYTES} bytes.")
    return tag
