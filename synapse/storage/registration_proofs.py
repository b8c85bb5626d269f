"""What somebody proved in order to register, and what becomes of it in the transaction that makes the account.

A token of registration is used once more, addresses become the account's, and the session of interactive authentication
remembers whose account it made: the same last step, asked twice or in two processes at once, makes one account.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import orjson

from synapse.storage import registration_tokens, threepid_sessions, threepids
from synapse.storage.threepids import Threepid

if TYPE_CHECKING:
    from synapse.storage.database import Transaction


class Address(NamedTuple):
    """An address that the new user has proven to have, by a validation that is good once; `validated_ts` in ms."""

    medium: str
    address: str
    validated_ts: int
    sid: str


class Proofs(NamedTuple):
    """What was proven, as far as the account is to remember it."""

    session_id: str | None = None
    registration_token: str | None = None
    addresses: tuple[Address, ...] = ()
    consent_version: str | None = None


NO_PROOFS = Proofs()


class AddressTaken(Exception):
    """An address is another account's meanwhile, or what proved it is used up."""


class TokenUsedUp(Exception):
    """The registration token has been used up or deleted meanwhile."""


class SessionGone(Exception):
    """The session of interactive authentication has expired meanwhile."""


def earlier_account(txn: Transaction, proofs: Proofs) -> str | None:
    """The account that the session has made already. It stays locked: of two last steps, one waits for the other."""
    if proofs.session_id is None:
        return None
    txn.execute(
        "SELECT server_dict ->> 'registered' FROM ui_auth_sessions WHERE session_id = %s FOR UPDATE",
        (proofs.session_id,),
    )
    row = txn.one_or_none()
    if row is None:
        raise SessionGone
    found: str | None = row[0]
    return found


def apply(txn: Transaction, user_id: str, password_hash: str | None, proofs: Proofs, now: int) -> None:
    """Lets the proofs take effect for an account that was just made. What it raises undoes the account."""
    if proofs.registration_token is not None and not registration_tokens.use(txn, proofs.registration_token):
        raise TokenUsedUp
    added = [Threepid(one.medium, one.address, one.validated_ts, now) for one in proofs.addresses]
    used = [one.sid for one in proofs.addresses]
    if not threepid_sessions.use(txn, used) or not threepids.insert(txn, user_id, added):
        raise AddressTaken
    if proofs.consent_version is not None:
        txn.execute(
            "UPDATE users SET consent_version = %s, consent_ts = %s WHERE user_id = %s",
            (proofs.consent_version, now, user_id),
        )
    if proofs.session_id is not None:
        # The hash may be that of a password which came with the last step only.
        made = {"registered": user_id, "registered_ts": now, "password_hash": password_hash}
        txn.execute(
            "UPDATE ui_auth_sessions SET server_dict = server_dict || %s::jsonb WHERE session_id = %s",
            (orjson.dumps(made).decode(), proofs.session_id),
        )
