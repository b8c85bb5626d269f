"""Many users with keys, for the scenarios of accounts and keys: made once, by many requests at a time.

Their keys look as real clients' do, and cross-signing keys are signed as the server checks them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass
from typing import Any

from nacl.signing import SigningKey
from signedjson.sign import sign_json
from unpaddedbase64 import encode_base64

from benchmarks.client import Client, Registrar

_AT_ONCE = 16
_ALGORITHMS = ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"]


@dataclass(frozen=True)
class Person:
    """A user, and a client for each of their devices."""

    devices: list[Client]

    @property
    def user_id(self) -> str:
        return self.devices[0].user_id


async def all_of(work: Iterable[Awaitable[object]]) -> None:
    """Awaits everything, a few at a time."""
    source = iter(work)

    async def some() -> None:
        for each in source:
            await each

    await asyncio.gather(*(some() for _ in range(_AT_ONCE)))


async def people(registrar: Registrar, name: str, count: int, devices: int = 1) -> list[Person]:
    """New users, who are logged in with so many devices each."""
    made: list[Person] = []

    async def one(number: int) -> None:
        clients = [await registrar.register(f"{name}-{number}")]
        clients += [await registrar.login(clients[0].user_id) for _ in range(devices - 1)]
        made.append(Person(clients))

    await all_of(one(number) for number in range(count))
    return made


class _Key:
    """A signing key under a name; signedjson's shape."""

    alg = "ed25519"

    def __init__(self, version: str | None = None) -> None:
        self._key = SigningKey.generate()
        self.public = encode_base64(bytes(self._key.verify_key))
        self.version = version or self.public

    def sign(self, message: bytes) -> Any:
        return self._key.sign(message)


def device_keys(client: Client, *signers: _Key) -> dict[str, Any]:
    """New identity keys of a device, signed by itself and by these."""
    own = _Key(client.device_id)
    keys: dict[str, Any] = {
        "user_id": client.user_id,
        "device_id": client.device_id,
        "algorithms": _ALGORITHMS,
        "keys": {
            f"ed25519:{client.device_id}": own.public,
            f"curve25519:{client.device_id}": _Key().public,
        },
    }
    for signer in (own, *signers):
        keys = sign_json(keys, client.user_id, signer)  # type: ignore[arg-type]
    return keys


def one_time_keys(client: Client, first: int, count: int) -> dict[str, Any]:
    """Signed one-time keys, of which nobody checks the signatures."""
    signature = "c" * 86
    signed = {"signatures": {client.user_id: {f"ed25519:{client.device_id}": signature}}}
    return {f"signed_curve25519:K{n:06}": {"key": f"{n:043}", **signed} for n in range(first, first + count)}


async def publish_keys(person: Person) -> None:
    """Cross-signing keys, and identity keys of all devices that are signed by them."""
    user_id = person.user_id
    master, self_signing, user_signing = _Key(), _Key(), _Key()
    body = {}
    for usage, key in (("master", master), ("self_signing", self_signing), ("user_signing", user_signing)):
        content = {"user_id": user_id, "usage": [usage], "keys": {f"ed25519:{key.public}": key.public}}
        if key is not master:
            content = sign_json(content, user_id, master)  # type: ignore[arg-type]
        body[f"{usage}_key"] = content
    await person.devices[0].request("POST", "/_matrix/client/v3/keys/device_signing/upload", body)
    for client in person.devices:
        await upload(client, device_keys=device_keys(client, self_signing))


async def upload(client: Client, **parts: Any) -> None:
    """Upload keys of a device."""
    await client.request("POST", "/_matrix/client/v3/keys/upload", parts)
