"""Which updates tell a server how a user's devices have changed since it heard of them last.

Pure: values in, values out. Each m.device_list_update names the one before it (`prev_id`), so that a server which has
missed one notices and fetches the list. One position of the stream `device_lists` may have changed several devices,
each of which is an update of its own: the ids of updates are made of the position and a number.

Server-server API, "Device Management".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from synapse.api.constants import EduTypes

if TYPE_CHECKING:
    from collections.abc import Callable

    from synapse.storage.device_lists_outbox import Devices, Told

MAX_CHAIN: Final = 20
"""Updates of one user that a server is told one by one. Where there are more, it is told of a gap instead, and fetches
the list, which is less work for both."""

_PER_POSITION: Final = 1024

Edu = tuple[str, dict[str, Any]]
"""Type and content."""


class Chain(NamedTuple):
    """The EDUs in order, and how much the server knows with them."""

    edus: list[Edu]
    stream_id: int
    update_id: int | None


def list_id(position: int) -> int:
    """The `stream_id` of a user's whole list as of a position: behind those of all updates of it."""
    return position * _PER_POSITION + _PER_POSITION - 1


def chain(
    user_id: str,
    devices: Devices,
    told: Told | None,
    keys_of: Callable[[str], dict[str, Any] | None],
    signing_keys: dict[str, Any],
) -> Chain:
    """What a server is to be told which has been `told` so much.

    :param keys_of: the keys of a device as others may see them, None: it has none.
    :param signing_keys: the user's, by their names in m.signing_key_update.
    """
    last = devices.changes[-1].stream_id if devices.changes else (told.stream_id if told else 0)
    changed, keys_changed, complete = _changed(devices, told)
    edus: list[Edu] = []
    if signing_keys and keys_changed:
        edus.append((EduTypes.SIGNING_KEY_UPDATE, {"user_id": user_id, **signing_keys}))
    update_id = told.update_id if told is not None else None
    previous = [] if update_id is None else [update_id]
    if not complete or len(changed) > MAX_CHAIN:
        # No server has been given this id.
        previous = [list_id(last) - 1] if told is not None else []
        newest = max(changed, key=changed.__getitem__, default=next(iter(devices.names), None))
        changed = {} if newest is None else {newest: list_id(last)}
    for device_id, update_id in sorted(changed.items(), key=lambda item: item[1]):
        content: dict[str, Any] = {
            "user_id": user_id,
            "device_id": device_id,
            "stream_id": update_id,
            "prev_id": previous,
        }
        _describe(content, devices.names, device_id, keys_of(device_id))
        edus.append((EduTypes.DEVICE_LIST_UPDATE, content))
        previous = [update_id]
    return Chain(edus, last, previous[0] if changed else (told.update_id if told is not None else None))


def _changed(devices: Devices, told: Told | None) -> tuple[dict[str, int], bool, bool]:
    """The ids of updates by device; whether the user's own keys may have changed; whether that is all."""
    if told is None:
        first = devices.changes[-1].stream_id if devices.changes else 0
        names = dict.fromkeys(devices.names)
        return {name: first * _PER_POSITION + n for n, name in enumerate(names)}, True, len(names) <= MAX_CHAIN
    changed: dict[str, int] = {}
    keys_changed, complete = False, told.stream_id >= devices.forgotten or not devices.changes
    for change in devices.changes:
        if change.device_ids is None or len(change.device_ids) >= _PER_POSITION - 2:
            complete = False
        keys_changed = keys_changed or not change.device_ids
        for n, device_id in enumerate(change.device_ids or ()):
            changed[device_id] = change.stream_id * _PER_POSITION + n
    return changed, keys_changed or not complete, complete


def _describe(
    content: dict[str, Any], names: dict[str, str | None], device_id: str, keys: dict[str, Any] | None
) -> None:
    if device_id not in names:
        content["deleted"] = True
        return
    if keys is not None:
        content["keys"] = keys
    if (name := names[device_id]) is not None:
        content["device_display_name"] = name
