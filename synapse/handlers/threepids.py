"""The e-mail addresses and phone numbers of an account: adding what was proved, removing, and telling of them.

Client-server API, "Adding Account Administrative Contact Information". Messages that prove an address are
`synapse.handlers.threepid_tokens`' matter, identity servers `synapse.handlers.identity_bindings`'.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from synapse.api.errors import Codes, MatrixError
from synapse.handlers.validations import ADD_THREEPID
from synapse.storage.threepids import Adding, Threepid

if TYPE_CHECKING:
    from synapse.handlers.identity_bindings import IdentityBindings
    from synapse.handlers.threepid_rules import ThreepidRules
    from synapse.handlers.validations import Proven, Validations
    from synapse.storage.threepids import ThreepidStore
    from synapse.util.clock import Clock


class Threepids:
    """What users have."""

    def __init__(
        self,
        store: ThreepidStore,
        validations: Validations,
        rules: ThreepidRules,
        bindings: IdentityBindings,
        clock: Clock,
    ) -> None:
        self._store = store
        self._validations = validations
        self._rules = rules
        self._bindings = bindings
        self._clock = clock

    async def of_user(self, user_id: str) -> list[dict[str, Any]]:
        """As `GET /account/3pid` tells them."""
        return [
            {
                "medium": one.medium,
                "address": one.address,
                "validated_at": one.validated_ts,
                "added_at": one.added_ts,
            }
            for one in await self._store.of_user(user_id)
        ]

    async def check(self, session_id: str, client_secret: str) -> Proven:
        """What the session has proved, if users may add it.

        Raises 403 M_FORBIDDEN, M_THREEPID_DENIED, M_THREEPID_AUTH_FAILED; 400 M_INVALID_PARAM.
        """
        self._rules.check_changes()
        proven = await self._validations.validated(session_id, client_secret, ADD_THREEPID)
        if proven is None:
            raise _not_proved()
        self._rules.check_allowed(proven.medium, proven.address)
        return proven

    async def add(self, user_id: str, session_id: str, client_secret: str) -> None:
        """Adds what the session has proved; the session is used up. Raises as `check`, and 400 M_THREEPID_IN_USE."""
        proven = await self.check(session_id, client_secret)
        threepid = Threepid(*proven, added_ts=int(self._clock.seconds() * 1000))
        added = await self._store.add_proved(user_id, threepid, session_id)
        if added is Adding.USED_UP:
            raise _not_proved()
        if added is Adding.TAKEN:
            raise MatrixError(400, Codes.THREEPID_IN_USE, "Another account on this server has that address.")

    async def remove(self, user_id: str, medium: str, address: str, id_server: str | None) -> bool:
        """Takes an address (canonical) from the account, and has it unbound; whether that succeeded."""
        self._rules.check_changes()
        unbound = await self._bindings.try_unbind(user_id, medium, address, id_server)
        await self._store.remove(user_id, medium, address)
        return unbound


def _not_proved() -> MatrixError:
    sentence = "It has not been proved that the address is yours; follow the link in the mail, or send the code, first."
    return MatrixError(403, Codes.THREEPID_AUTH_FAILED, sentence)
