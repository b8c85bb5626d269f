"""What people call themselves when they log in: a user id, its localpart, an e-mail address, a phone number.

All ways to name an account lead to the same user id, by which attempts are counted; a name that is nobody's is counted
by itself, so that it behaves like an account's. Client-server API, "Identifier types".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from synapse.api.errors import bad_json, missing_param, unknown
from synapse.api.threepids import EMAIL, MSISDN, canonical, canonical_msisdn

if TYPE_CHECKING:
    from synapse.storage.threepids import ThreepidStore

USER: Final = "m.id.user"
THIRD_PARTY: Final = "m.id.thirdparty"
PHONE: Final = "m.id.phone"
_MAX_NAME: Final = 255


class LoginNames:
    """Finds the account that somebody names."""

    def __init__(self, threepids: ThreepidStore, server_name: str) -> None:
        self._threepids = threepids
        self._server_name = server_name

    async def named(self, body: dict[str, Any]) -> str:
        """The user id of the account in `identifier` or, as of old, in `user` or `medium` and `address`; something that
        is no user id where an address is nobody's.

        Raises 400: M_MISSING_PARAM, M_BAD_JSON, M_INVALID_PARAM for what is no address, M_UNKNOWN for another type,
        M_THREEPID_MEDIUM_NOT_SUPPORTED.
        """
        identifier = body.get("identifier")
        if identifier is None:
            identifier = _of_old(body)
        if not isinstance(identifier, dict):
            raise bad_json("The key 'identifier' must be an object.")
        kind = _text(identifier, "type")
        if kind == USER:
            return self._user(_text(identifier, "user"))
        if kind == THIRD_PARTY:
            medium, address = _text(identifier, "medium"), _text(identifier, "address")
            return await self._owner(medium, canonical(medium, address))
        if kind == PHONE:
            # `number` is how it was called before the specification was written down.
            number = _text(identifier, "number" if "phone" not in identifier and "number" in identifier else "phone")
            return await self._owner(MSISDN, canonical_msisdn(number, _text(identifier, "country")))
        raise unknown(f"An identifier must be of the type {USER}, {THIRD_PARTY} or {PHONE}.")

    def _user(self, name: str) -> str:
        name = name[:_MAX_NAME]  # more is nobody's
        if not name.startswith("@"):
            return f"@{name.lower()}:{self._server_name}"
        localpart, _, domain = name.partition(":")
        return f"{localpart.lower()}:{domain}"

    async def _owner(self, medium: str, address: str) -> str:
        return await self._threepids.owner(medium, address) or f"{medium} {address}"


def _of_old(body: dict[str, Any]) -> dict[str, Any]:
    if body.get("user") is not None:
        return {"type": USER, "user": body["user"]}
    if body.get("medium") is not None or body.get("address") is not None:
        return {"type": THIRD_PARTY, "medium": body.get("medium", EMAIL), "address": body.get("address")}
    raise missing_param("identifier")


def _text(identifier: dict[str, Any], key: str) -> str:
    value = identifier.get(key)
    if value is None:
        raise missing_param(f"identifier.{key}")
    if not isinstance(value, str):
        raise bad_json(f"The key 'identifier.{key}' must be a string.")
    return value
