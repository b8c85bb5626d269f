"""Signatures of keys: which a user may make, and which of them are good.

A user's self-signing key signs their devices, their devices sign their master key, and their user-signing key signs the
master keys of others. The signed object must be the one that is published.

Works in the main process. Client-server API, "Cross-signing", `POST /keys/signatures/upload`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

from synapse.api.errors import MatrixError, bad_json, not_found, too_large
from synapse.api.identifiers import domain_of, parse_user_id
from synapse.handlers.device_changes import news_of
from synapse.handlers.signed_keys import ED25519, invalid_signature, is_signed, signatures_by, signed_part
from synapse.storage.cross_signing import MASTER, SELF_SIGNING, USER_SIGNING, Signature

if TYPE_CHECKING:
    from synapse.handlers.edus.asking import TheirKeys
    from synapse.handlers.positions import StreamWriter
    from synapse.storage.cross_signing import CrossSigningKey, CrossSigningStore, Signable

MAX_KEYS: Final = 1_000

Signed = dict[str, dict[str, dict[str, Any]]]
"""By user id and key id (a device id or public key): the signed objects."""
Failures = dict[str, dict[str, dict[str, Any]]]


class KeySignatures:
    """Takes in signatures.

    :param others: knows the keys of other servers' users, which have to be here to be signed.
    """

    def __init__(self, store: CrossSigningStore, stream: StreamWriter, others: TheirKeys, server_name: str) -> None:
        self._store = store
        self._stream = stream
        self._others = others
        self._server_name = server_name

    async def upload(self, user_id: str, body: dict[str, Any]) -> dict[str, Any]:
        """Stores and tells what is good; `failures` has the rest. Raises 400 M_BAD_JSON, M_INVALID_PARAM, 413."""
        signed = _checked(body)
        if not any(signed.values()):
            return {"failures": {}}
        devices = _devices_named(user_id, signed)
        if theirs := [each for each in signed if domain_of(each) != self._server_name]:
            await self._others.keep_master_keys(user_id, theirs)

        def judge(signable: Signable) -> tuple[list[Signature], Failures]:
            return _Judge(user_id, signable).judge(signed)

        _, failures = await self._stream.append(
            lambda position: self._store.sign(user_id, list(signed), devices, judge, position),
            lambda result: news_of(user_id, public=user_id in result[0], private=bool(result[0] - {user_id})),
        )
        return {"failures": failures}


def _checked(body: dict[str, Any]) -> Signed:
    for user_id, keys in body.items():
        parse_user_id(user_id)
        if not isinstance(keys, dict) or not all(isinstance(key, dict) for key in keys.values()):
            raise bad_json("The values must be objects of key IDs with a signed object each.")
    if sum(map(len, body.values())) > MAX_KEYS:
        raise too_large(f"One request may sign {MAX_KEYS} keys at most.")
    return body


def _devices_named(user_id: str, signed: Signed) -> list[str]:
    """Own devices that are signed, or may have signed the master key."""
    named: set[str] = set()
    for key_id, key in signed.get(user_id, {}).items():
        named.add(key_id)
        signatures = key.get("signatures")
        own = signatures.get(user_id) if isinstance(signatures, dict) else None
        if isinstance(own, dict):
            named.update(each.removeprefix(ED25519) for each in own)
    return [name for name in named if "\x00" not in name]


class _Judge:
    """Knows the keys that there are."""

    def __init__(self, signer: str, signable: Signable) -> None:
        self._signer = signer
        self._devices = signable.devices
        self._keys: dict[tuple[str, str], CrossSigningKey] = {(key.user_id, key.usage): key for key in signable.keys}

    def judge(self, signed: Signed) -> tuple[list[Signature], Failures]:
        good: list[Signature] = []
        failures: Failures = {}
        for user_id, keys in signed.items():
            for target_id, key in keys.items():
                try:
                    made = self._signatures(user_id, target_id, key)
                except MatrixError as error:
                    failures.setdefault(user_id, {})[target_id] = error.body()
                else:
                    good += [Signature(user_id, target_id, self._signer, *each) for each in made.items()]
        return good, failures

    def _signatures(self, user_id: str, target_id: str, key: dict[str, Any]) -> dict[str, str]:
        """The signatures to store of one key. Raises what becomes its failure."""
        message, signatures = signed_part(key), signatures_by(key, self._signer)
        master = self._keys.get((user_id, MASTER))
        if master is not None and target_id == master.public_key:
            _check_same(message, master.json.encode())
            if user_id == self._signer:
                return self._by_devices(message, signatures)
            return self._by_key(USER_SIGNING, message, signatures)
        if user_id == self._signer and target_id in self._devices:
            _check_same(message, signed_part(orjson.loads(self._devices[target_id])))
            return self._by_key(SELF_SIGNING, message, signatures)
        raise not_found("There is no such key that you could sign: own devices, and master keys, may be signed.")

    def _by_key(self, usage: str, message: bytes, signatures: dict[str, str]) -> dict[str, str]:
        key = self._keys.get((self._signer, usage))
        if key is None:
            raise not_found(f"You have no {usage}_key to sign with; upload one first.")
        key_id = ED25519 + key.public_key
        signature = signatures.get(key_id)
        if signature is None:
            raise invalid_signature(f"The object is not signed by your {usage}_key.")
        if not is_signed(message, signature, key.public_key):
            raise invalid_signature(f"The signature by your {usage}_key is not right.")
        return {key_id: signature}

    def _by_devices(self, message: bytes, signatures: dict[str, str]) -> dict[str, str]:
        made = {}
        for key_id, signature in signatures.items():
            device_keys = self._devices.get(key_id.removeprefix(ED25519))
            if device_keys is None or not key_id.startswith(ED25519):
                continue
            if not is_signed(message, signature, orjson.loads(device_keys)["keys"].get(key_id, "")):
                raise invalid_signature(f"The signature by {key_id} is not right.")
            made[key_id] = signature
        if not made:
            raise invalid_signature("The object is not signed by one of your devices.")
        return made


def _check_same(given: bytes, published: bytes) -> None:
    if given != published:
        raise invalid_signature("The signed object is not the key as it is published.")
