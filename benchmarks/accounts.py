"""The scenarios of accounts and keys: logging in, and what encryption asks of the server.

They stand beside those of rooms (`benchmarks.scenarios`), in the same shape. Passwords should be hashed quickly
(`bcrypt_rounds: 4`), or the hash is what is measured. What is dear to prepare, an encrypted room of a thousand members
with keys, is made once for all.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any
from urllib.parse import quote

from benchmarks.client import Client
from benchmarks.crowd import Person, all_of, device_keys, one_time_keys, people, publish_keys, upload
from benchmarks.scenarios import MANY, Meter, Operation, Result, World

_V3 = "/_matrix/client/v3"
_ENCRYPTION = [{"type": "m.room.encryption", "state_key": "", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}]
_ROOMS = 500
_UPLOADED = 50  # one-time keys at a time, as clients do
_MESSAGES = 100

# scenario: (milliseconds of CPU an operation in the server's processes, the same in the database's)
BUDGETS: dict[str, tuple[float, float]] = {
    "whoami": (0.4, 0.1),
    "profile": (0.6, 0.2),
    "login": (5.0, 1.5),
    "register": (5.0, 1.5),
    "refresh": (5.0, 3.0),  # with the first use of the new token, which all processes are told of
    "keys_upload": (5.0, 2.5),
    "keys_query_own": (1.0, 0.7),
    "keys_query_1000": (50.0, 20.0),
    "keys_claim": (2.0, 1.0),
    "to_device_100": (3.5, 2.5),
    "to_device_sync": (1.5, 0.5),
    "backup_1000": (25.0, 30.0),
    "key_changes_1000": (4.0, 4.0),
    "key_change_sync": (1.0, 1.0),
}


async def _crowd(world: World) -> list[Person]:
    """A thousand users with two devices each and all their keys, in one encrypted room with the first user."""
    found = world.kept.get("crowd")
    if found is None:
        found = await people(world.registrar, f"{world.run}-crowd", MANY, devices=2)
        room = await world.users[0].create_room(preset="public_chat", initial_state=_ENCRYPTION)
        await all_of(person.devices[0].join(room) for person in found)
        await all_of(publish_keys(person) for person in found)
        world.kept["crowd"] = found
    crowd: list[Person] = found
    return crowd


def _times(operation: Operation, count: int) -> Iterable[Operation]:
    return (operation for _ in range(count))


async def whoami(world: World, meter: Meter, count: int) -> Result:
    """Whose token it is."""
    ask = partial(world.users[0].request, "GET", f"{_V3}/account/whoami")
    await ask()
    return await meter.measure("whoami", _times(ask, count))


async def profile(world: World, meter: Meter, count: int) -> Result:
    """Profiles of others, read one after another."""
    asked = [f"{_V3}/profile/{quote(user.user_id)}" for user in world.users]
    return await meter.measure(
        "profile", (partial(world.users[0].request, "GET", asked[i % len(asked)]) for i in range(count))
    )


async def login(world: World, meter: Meter, count: int) -> Result:
    """Logins by password, each on a new device."""
    users = await people(world.registrar, f"{world.run}-login", 20)
    return await meter.measure(
        "login", (partial(world.registrar.login, users[i % len(users)].user_id) for i in range(count))
    )


async def register(world: World, meter: Meter, count: int) -> Result:
    """Registrations with the stage m.login.dummy, which log in."""
    names = (f"{world.run}-new-{number}" for number in range(count))
    return await meter.measure("register", (partial(world.registrar.register_openly, name) for name in names))


async def refresh(world: World, meter: Meter, count: int) -> Result:
    """Refreshes of one session, the new access token being used once before the next."""
    (person,) = await people(world.registrar, f"{world.run}-refresh", 1)
    answer = await world.registrar.logged_in(person.user_id, refresh_token=True)

    async def one() -> None:
        nonlocal answer
        body = {"refresh_token": answer["refresh_token"]}
        answer = await world.registrar.anonymous.request("POST", f"{_V3}/refresh", body)
        await world.registrar.client(answer["access_token"]).request("GET", f"{_V3}/account/whoami")

    return await meter.measure("refresh", _times(one, count))


async def keys_upload(world: World, meter: Meter, count: int) -> Result:
    """Fifty one-time keys at a time."""
    users = await people(world.registrar, f"{world.run}-upload", max(1, -(-count // 10)))
    for user in users:
        await upload(user.devices[0], device_keys=device_keys(user.devices[0]))

    def one(number: int) -> Operation:
        client = users[number % len(users)].devices[0]
        keys = one_time_keys(client, number // len(users) * _UPLOADED, _UPLOADED)
        return partial(upload, client, one_time_keys=keys)

    return await meter.measure("keys_upload", [one(number) for number in range(count)])


async def keys_query_own(world: World, meter: Meter, count: int) -> Result:
    """The user's own keys: two devices and cross-signing."""
    (person,) = await people(world.registrar, f"{world.run}-own", 1, devices=2)
    await publish_keys(person)
    query = {"device_keys": {person.user_id: []}}
    ask = partial(person.devices[0].request, "POST", f"{_V3}/keys/query", query)
    return await meter.measure("keys_query_own", _times(ask, count))


async def keys_query_1000(world: World, meter: Meter, count: int) -> Result:
    """The keys of everybody in an encrypted room of a thousand members with two devices each, cross-signed."""
    query = {"device_keys": {person.user_id: [] for person in await _crowd(world)}}
    ask = partial(world.users[0].request, "POST", f"{_V3}/keys/query", query)
    await ask()
    return await meter.measure("keys_query_1000", _times(ask, count))


async def keys_claim(world: World, meter: Meter, count: int) -> Result:
    """One key of another device with each request."""
    (owner,) = (await people(world.registrar, f"{world.run}-claim", 1))[0].devices
    for first in range(0, min(count, 1000), _UPLOADED):
        await upload(owner, one_time_keys=one_time_keys(owner, first, _UPLOADED))
    wanted = {"one_time_keys": {owner.user_id: {owner.device_id: "signed_curve25519"}}}
    ask = partial(world.users[0].request, "POST", f"{_V3}/keys/claim", wanted)
    return await meter.measure("keys_claim", _times(ask, min(count, 1000)))


def _to_devices(sender: Client, devices: Iterable[Client], txn: str) -> Awaitable[Any]:
    content = {"algorithm": "m.olm.v1.curve25519-aes-sha2", "ciphertext": "x" * 500}
    messages: dict[str, dict[str, Any]] = {}
    for device in devices:
        messages.setdefault(device.user_id, {})[device.device_id] = content
    return sender.request("PUT", f"{_V3}/sendToDevice/m.room.encrypted/{txn}", {"messages": messages})


async def to_device_100(world: World, meter: Meter, count: int) -> Result:
    """A message to each of a hundred devices of fifty users."""
    devices = [device for person in (await _crowd(world))[: _MESSAGES // 2] for device in person.devices]
    operations = (partial(_to_devices, world.users[0], devices, f"many{i}") for i in range(count))
    return await meter.measure("to_device_100", operations)


async def to_device_sync(world: World, meter: Meter, count: int) -> Result:
    """Syncs that bring a hundred messages, the same each time: the token is not that of the answer."""
    (reader,) = (await people(world.registrar, f"{world.run}-reader", 1))[0].devices
    since = (await reader.sync())["next_batch"]
    for number in range(_MESSAGES):
        await _to_devices(world.users[0], [reader], f"one{number}")
    assert len((await reader.sync(since))["to_device"]["events"]) == _MESSAGES
    return await meter.measure("to_device_sync", _syncs(reader, since, count))


async def backup_1000(world: World, meter: Meter, count: int) -> Result:
    """A thousand sessions of ten rooms, new ones each time, into a key backup."""
    (client,) = (await people(world.registrar, f"{world.run}-backup", 1))[0].devices
    algorithm = {"algorithm": "m.megolm_backup.v1.curve25519-aes-sha2", "auth_data": {"public_key": "x"}}
    version = (await client.request("POST", f"{_V3}/room_keys/version", algorithm))["version"]
    data = {"ephemeral": "e" * 43, "ciphertext": "c" * 700, "mac": "m" * 11}
    key = {"first_message_index": 0, "forwarded_count": 0, "is_verified": True, "session_data": data}

    def rooms(number: int) -> dict[str, Any]:
        return {
            f"!{room}:x": {"sessions": {f"{number}-{room}-{session:040}": key for session in range(100)}}
            for room in range(10)
        }

    put = partial(client.request, "PUT", f"{_V3}/room_keys/keys", params={"version": version})
    bodies = [{"rooms": rooms(number)} for number in range(count)]
    return await meter.measure("backup_1000", (partial(put, body) for body in bodies))


async def key_change_sync(world: World, meter: Meter, count: int) -> Result:
    """Syncs of a user with 500 encrypted rooms and 2,000 companions, one of whom has new keys."""
    (reader,) = (await people(world.registrar, f"{world.run}-busy", 1))[0].devices
    companions = [person.devices[0] for person in await _crowd(world)]
    companions += [person.devices[0] for person in await people(world.registrar, f"{world.run}-more", MANY)]

    async def fill(number: int) -> None:
        room = await reader.create_room(preset="public_chat", initial_state=_ENCRYPTION)
        for companion in companions[number::_ROOMS]:
            await companion.join(room)

    await all_of(fill(number) for number in range(_ROOMS))
    since = await _settled(reader)
    await upload(companions[-1], device_keys=device_keys(companions[-1]))
    return await _told(meter, "key_change_sync", reader, since, 1, count)


async def key_changes_1000(world: World, meter: Meter, count: int) -> Result:
    """Syncs of a member of the room of a thousand, all of whom have new keys."""
    crowd = await _crowd(world)
    since = await _settled(world.users[0])
    await all_of(upload(person.devices[1], device_keys=device_keys(person.devices[1])) for person in crowd)
    return await _told(meter, "key_changes_1000", world.users[0], since, MANY, count)


async def _settled(reader: Client) -> str:
    since = str((await reader.sync())["next_batch"])
    return str((await reader.sync(since))["next_batch"])


async def _told(meter: Meter, name: str, reader: Client, since: str, changed: int, count: int) -> Result:
    told = (await reader.sync(since))["device_lists"]["changed"]
    assert len(told) == changed, told
    return await meter.measure(name, _syncs(reader, since, count))


def _syncs(reader: Client, since: str, count: int) -> Iterable[Operation]:
    """With another timeout each, so that none is answered from what is kept for retries."""
    return (partial(reader.sync, since, 1000 + number) for number in range(count))


SCENARIOS: dict[str, tuple[Callable[[World, Meter, int], Awaitable[Result]], int]] = {
    "whoami": (whoami, 1000),
    "profile": (profile, 500),
    "login": (login, 200),
    "register": (register, 200),
    "refresh": (refresh, 200),
    "keys_upload": (keys_upload, 200),
    "keys_query_own": (keys_query_own, 300),
    "keys_query_1000": (keys_query_1000, 30),
    "keys_claim": (keys_claim, 500),
    "to_device_100": (to_device_100, 100),
    "to_device_sync": (to_device_sync, 200),
    "backup_1000": (backup_1000, 30),
    "key_changes_1000": (key_changes_1000, 60),
    "key_change_sync": (key_change_sync, 200),  # the last, since many are in its rooms from then on
}
