"""Cross-signing keys and signatures of keys: who they are of, and who has signed what.

Of each usage a user has one key, the latest. Each signature is kept once, apart from what is signed, whichever way it
came. A key takes with it, when it is replaced, what it has signed and what was signed of it.

What keys look like and which signatures are good is not known here. All is written in the main process, at positions
of the stream `device_lists`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from synapse.storage.devices import record_change

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction

T = TypeVar("T")

MASTER: Final = "master"
SELF_SIGNING: Final = "self_signing"
USER_SIGNING: Final = "user_signing"
USAGES: Final = (MASTER, SELF_SIGNING, USER_SIGNING)


class CrossSigningKey(NamedTuple):
    """A key; `json` is the text as uploaded, without signatures, `replaceable_until` a time in milliseconds."""

    user_id: str
    usage: str
    public_key: str
    json: str
    replaceable_until: int | None = None


class Signature(NamedTuple):
    """A signature of the target, which is a public key or a device id of a user."""

    target_user_id: str
    target_id: str
    signer_user_id: str
    key_id: str
    signature: str


class Signable(NamedTuple):
    """What signatures are judged by: cross-signing keys, and the JSON of own device keys by device id."""

    keys: list[CrossSigningKey]
    devices: dict[str, str]


class KeysChanged(Exception):
    """The user's keys are not those any more that the request was judged by."""


class KeyIdInUse(Exception):
    """The user has a device of that name; the argument is the public key."""


class CrossSigningStore:
    """Reads and writes keys and signatures."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def keys_of(self, user_id: str) -> dict[str, CrossSigningKey]:
        """A user's keys by usage."""
        return await self._db.read("cross_signing.keys_of", _keys_by_usage, user_id)

    async def replace(
        self,
        known: dict[str, CrossSigningKey],
        keys: list[CrossSigningKey],
        signatures: list[Signature],
        now: int,
        stream_id: int,
    ) -> None:
        """Stores keys of one user, with their signatures, in place of the `known` ones of the same usages.

        With another master key, all the known ones go. Raises `KeysChanged` if the user's keys are others than
        `known` by now, and `KeyIdInUse`.
        """
        await self._db.write("cross_signing.replace", _replace, known, keys, signatures, now, stream_id)

    async def sign(
        self,
        signer: str,
        user_ids: list[str],
        device_ids: list[str],
        judge: Callable[[Signable], tuple[list[Signature], T]],
        stream_id: int,
    ) -> tuple[set[str], T]:
        """Stores the signatures that `judge` (which may be called again) finds good.

        It is shown the keys of the signer and of `user_ids`, and the keys of these devices of the signer, which stay
        as they are until all is written. Returns the users who have got new signatures, and what else it said.
        """
        return await self._db.write("cross_signing.sign", _sign, signer, user_ids, device_ids, judge, stream_id)

    async def allow_replacement(self, user_id: str, until: int) -> bool:
        """Lets the master key be replaced without proof until then (milliseconds); False if there is none."""
        return await self._db.write("cross_signing.allow_replacement", _allow_replacement, user_id, until)


def _keys_of(txn: Transaction, user_ids: list[str], lock: str = "") -> list[CrossSigningKey]:
    txn.execute(
        f"""
        SELECT user_id, usage, public_key, key_json, replaceable_until_ts FROM cross_signing_keys
        WHERE user_id = ANY(%s) {lock}
        """,
        (user_ids,),
    )
    return [CrossSigningKey(*row) for row in txn.rows()]


def _keys_by_usage(txn: Transaction, user_id: str, lock: str = "") -> dict[str, CrossSigningKey]:
    return {key.usage: key for key in _keys_of(txn, [user_id], lock)}


# -- keys --------------------------------------------------------------------------------------------------------------


def _replace(
    txn: Transaction,
    known: dict[str, CrossSigningKey],
    keys: list[CrossSigningKey],
    signatures: list[Signature],
    now: int,
    stream_id: int,
) -> None:
    user_id = keys[0].user_id
    if _keys_by_usage(txn, user_id, "FOR UPDATE") != known:
        raise KeysChanged
    _check_free(txn, user_id, [key.public_key for key in keys])
    usages = {key.usage for key in keys}
    gone = list(known.values()) if MASTER in usages else [known[usage] for usage in usages if usage in known]
    if gone:
        _drop(txn, user_id, gone)
    # What another has inserted meanwhile cannot be seen here: the conflict has the transaction tried again, which
    # then sees that the keys are others.
    txn.values(
        """
        INSERT INTO cross_signing_keys (user_id, usage, public_key, key_json, uploaded_ts) VALUES %s
        ON CONFLICT DO NOTHING
        """,
        [(*key[:4], now) for key in keys],
    )
    _add_signatures(txn, signatures)
    private = usages == {USER_SIGNING}
    _tell(txn, user_id, stream_id, [user_id] if private else [], None if private else [])


def take_in_keys(
    txn: Transaction, user_id: str, keys: list[CrossSigningKey], signatures: list[Signature], *, whole: bool
) -> bool:
    """Within somebody else's transaction: keys of another server's user, in place of others of the same usage, with the
    signatures that the user has made of them. `whole`: these are all keys. True if anything is new, or gone.
    """
    known = _keys_by_usage(txn, user_id, "FOR UPDATE")
    given = {key.usage: key for key in keys}
    new = [key for key in keys if key.usage not in known or known[key.usage].json != key.json]
    others = known.keys() - given.keys()
    new_master = MASTER in known and MASTER in given and known[MASTER].public_key != given[MASTER].public_key
    replaced = {key.usage for key in new} | (others if whole or new_master else set())
    if gone := [known[usage] for usage in replaced if usage in known]:
        _drop(txn, user_id, gone)
    txn.values(
        "INSERT INTO cross_signing_keys (user_id, usage, public_key, key_json, uploaded_ts) VALUES %s",
        [(*key[:4], 0) for key in new],
        later=True,
    )
    return bool(_add_signatures(txn, signatures) or new or gone)


def _check_free(txn: Transaction, user_id: str, public_keys: list[str]) -> None:
    txn.execute("SELECT device_id FROM devices WHERE user_id = %s AND device_id = ANY(%s)", (user_id, public_keys))
    taken = txn.one_or_none()
    if taken is not None:
        raise KeyIdInUse(taken[0])


def _drop(txn: Transaction, user_id: str, keys: list[CrossSigningKey]) -> None:
    """Takes keys away, with the signatures of them and by them."""
    txn.execute(
        """
        WITH keys AS (
            DELETE FROM cross_signing_keys WHERE user_id = %(user)s AND usage = ANY(%(usages)s)
        ), signed AS (
            DELETE FROM key_signatures WHERE target_user_id = %(user)s AND target_id = ANY(%(public_keys)s)
        )
        DELETE FROM key_signatures WHERE signer_user_id = %(user)s AND key_id = ANY(%(key_ids)s)
            AND NOT (target_user_id = %(user)s AND target_id = ANY(%(public_keys)s))
        """,
        {
            "user": user_id,
            "usages": [key.usage for key in keys],
            "public_keys": [key.public_key for key in keys],
            "key_ids": [f"ed25519:{key.public_key}" for key in keys],
        },
    )


def _allow_replacement(txn: Transaction, user_id: str, until: int) -> bool:
    txn.execute(
        "UPDATE cross_signing_keys SET replaceable_until_ts = %s WHERE user_id = %s AND usage = %s RETURNING true",
        (until, user_id, MASTER),
    )
    return txn.one_or_none() is not None


def delete(txn: Transaction, user_id: str) -> bool:
    """Takes away what there is of a user's keys and signatures; whether there were keys."""
    txn.execute("DELETE FROM cross_signing_keys WHERE user_id = %s RETURNING true", (user_id,))
    had_keys = txn.one_or_none() is not None
    txn.later(
        "DELETE FROM key_signatures WHERE target_user_id = %(user)s OR signer_user_id = %(user)s", {"user": user_id}
    )
    return had_keys


# -- signatures --------------------------------------------------------------------------------------------------------


def _sign(
    txn: Transaction,
    signer: str,
    user_ids: list[str],
    device_ids: list[str],
    judge: Callable[[Signable], tuple[list[Signature], T]],
    stream_id: int,
) -> tuple[set[str], T]:
    keys = _keys_of(txn, [signer, *user_ids], "FOR SHARE")
    devices: dict[str, str] = {}
    if device_ids:
        txn.execute(
            "SELECT device_id, key_json FROM device_keys WHERE user_id = %s AND device_id = ANY(%s) FOR SHARE",
            (signer, device_ids),
        )
        devices = dict(txn.rows())
    good, rest = judge(Signable(keys, devices))
    changed = _add_signatures(txn, good)
    if changed:
        signed = sorted({each.target_id for each in good if each.target_user_id == signer} & devices.keys())
        _tell(txn, signer, stream_id, sorted(changed - {signer}), signed if signer in changed else None)
    return changed, rest


def _add_signatures(txn: Transaction, signatures: list[Signature]) -> set[str]:
    """Returns whose keys have got signatures that they did not have."""
    if not signatures:
        return set()
    txn.values(
        """
        INSERT INTO key_signatures (target_user_id, target_id, signer_user_id, key_id, signature) VALUES %s
        ON CONFLICT (target_user_id, target_id, signer_user_id, key_id) DO UPDATE SET signature = EXCLUDED.signature
        WHERE key_signatures.signature <> EXCLUDED.signature RETURNING target_user_id
        """,
        signatures,
    )
    return {user_id for (user_id,) in txn.rows()}


def _tell(txn: Transaction, user_id: str, stream_id: int, private: list[str], devices: list[str] | None) -> None:
    """Writes what has changed: of the user's keys and those of these devices, for all to see (None: nothing); of the
    keys of `private`, for the user alone.
    """
    if devices is not None:
        record_change(txn, user_id, devices, stream_id)
    if private:
        txn.later(
            "INSERT INTO device_lists_private (stream_id, user_id, changed_user_ids) VALUES (%s, %s, %s)",
            (stream_id, user_id, private),
        )
