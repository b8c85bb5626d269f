"""Which members of a room each device has been told of, so that lazy loading need not repeat itself.

Memory of one process, bounded, and lost with it: a device that is forgotten is told again, which the specification
allows ("redundant membership events"). It holds user ids only, since a membership that changes is told anyway.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping

from synapse.sync.tokens import StreamToken

_Device = tuple[str, str | None]


class LazyMembers:
    """The memory.

    :param devices: how many devices to remember.
    :param members: how many members of one room.
    """

    def __init__(self, devices: int = 2_000, members: int = 1_000) -> None:
        self._devices: OrderedDict[_Device, dict[str, set[str]]] = OrderedDict()
        self._tokens: dict[_Device, StreamToken] = {}
        self._size = devices
        self._members = members

    def known(self, user_id: str, device_id: str | None, room_id: str) -> set[str]:
        """Members of the room whom the device has been told of. Not to be changed."""
        rooms = self._devices.get((user_id, device_id))
        return set() if rooms is None else rooms.get(room_id, set())

    def check(self, user_id: str, device_id: str | None, since: StreamToken | None) -> None:
        """Forgets the device unless it goes on from what it was given last: another answer may not have reached it."""
        if since is None or self._tokens.get((user_id, device_id)) != since:
            self.forget(user_id, device_id)

    def told(
        self, user_id: str, device_id: str | None, token: StreamToken, members: Mapping[str, Collection[str]]
    ) -> None:
        """The device is given this token as its `next_batch`, and with it these members of rooms."""
        device = (user_id, device_id)
        rooms = self._devices.setdefault(device, {})
        self._devices.move_to_end(device)
        self._tokens[device] = token
        for room_id, introduced in members.items():
            known = rooms.setdefault(room_id, set())
            known.update(introduced)
            if len(known) > self._members:
                rooms[room_id] = set(introduced)
        if len(self._devices) > self._size:
            self.forget(*next(iter(self._devices)))

    def forget(self, user_id: str, device_id: str | None) -> None:
        """The device starts anew, or may have lost what it was told."""
        self._devices.pop((user_id, device_id), None)
        self._tokens.pop((user_id, device_id), None)
