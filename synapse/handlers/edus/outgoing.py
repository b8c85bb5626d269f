"""Messages for devices of other servers' users, as EDUs m.direct_to_device.

Pure but for the ids, which are random. Server-server API, "Send-to-device messaging".
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

import orjson

from synapse.api.identifiers import domain_of, random_letters
from synapse.storage.to_device_outbox import Outgoing

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_EDU_BYTES: Final = 65_536
"""Messages are put together in an EDU up to so much; one of them alone may have more, with what names it."""

Contents = list[tuple[str, str, dict[str, Any]]]
"""User id, device id (or "*") and content of each message."""


def edus_of(sender: str, event_type: str, messages: Contents) -> list[Outgoing]:
    """As few EDUs as there may be. Their message ids are in their order, and unlike all others."""
    request = random_letters(16)
    by_server: dict[str, Contents] = {}
    for message in messages:
        by_server.setdefault(domain_of(message[0]), []).append(message)
    parts = ((server, part) for server, each in by_server.items() for part in _parts(each))
    return [
        Outgoing(server, message_id, _content(sender, event_type, message_id, part))
        for message_id, (server, part) in _numbered(request, parts)
    ]


def _numbered(request: str, parts: Iterable[tuple[str, Contents]]) -> Iterator[tuple[str, tuple[str, Contents]]]:
    for number, part in enumerate(parts):
        yield f"{request}{number:05}", part


def _parts(messages: Contents) -> Iterator[Contents]:
    part: Contents = []
    size = 0
    for message in messages:
        length = len(orjson.dumps(message))
        if part and size + length > MAX_EDU_BYTES:
            yield part
            part, size = [], 0
        part.append(message)
        size += length
    yield part


def _content(sender: str, event_type: str, message_id: str, part: Contents) -> str:
    messages: dict[str, dict[str, dict[str, Any]]] = {}
    for user_id, device_id, content in part:
        messages.setdefault(user_id, {})[device_id] = content
    edu = {"sender": sender, "type": event_type, "message_id": message_id, "messages": messages}
    return orjson.dumps(edu).decode()
