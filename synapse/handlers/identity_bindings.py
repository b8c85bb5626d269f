"""Addresses that identity servers tell others to be a user's: having it told (bind), and told no more (unbind).

A bind needs the user's token for the identity server; an unbind is signed by this server, which vouches for its user.
Where addresses were bound is remembered, so that they can be unbound when their owner does not know, or is gone.

Identity service API, "Establishing associations"; client-server API, "Adding Account Administrative Contact
Information".
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from synapse.api.errors import MatrixError, unknown
from synapse.api.threepids import MEDIA, canonical
from synapse.events import canonical as canonical_json
from synapse.federation.client import authorization
from synapse.handlers.identity_server import check_token, successful
from synapse.http.client import ClientError
from synapse.storage.threepids import Binding
from synapse.util.concurrency import gather

if TYPE_CHECKING:
    from collections.abc import Callable

    from signedjson.types import SigningKey

    from synapse.handlers.threepid_rules import ThreepidRules
    from synapse.http.client import ClientAnswer
    from synapse.http.outside import OutsideClient
    from synapse.storage.threepids import ThreepidStore

logger = logging.getLogger(__name__)

WITHIN: Final = 20.0  # seconds
MAX_ANSWER: Final = 64 * 1024  # bytes
_API: Final = "/_matrix/identity/v2/3pid"
_MAX_ADDRESS: Final = 255
_NO_SUPPORT: Final = (400, 404, 501)


class IdentityBindings:
    """Binds and unbinds, in any process.

    :param client: makes the client for requests to identity servers, when it is needed.
    :param key: gives the key that this server signs with.
    """

    def __init__(
        self,
        client: Callable[[], OutsideClient],
        store: ThreepidStore,
        rules: ThreepidRules,
        server_name: str,
        key: Callable[[], SigningKey],
    ) -> None:
        self._client = client
        self._store = store
        self._rules = rules
        self._server_name = server_name
        self._key = key

    async def bind(self, user_id: str, id_server: str, id_access_token: str, sid: str, client_secret: str) -> None:
        """Has the server tell that what was validated in its session is the user's.

        Raises 400, 403 or 404 with what the server refuses.
        """
        self._rules.check_identity_server(id_server)
        check_token(id_access_token)
        body = {"sid": sid, "client_secret": client_secret, "mxid": user_id}
        answer = successful(await self._post(id_server, "/bind", body, f"Bearer {id_access_token}"), id_server)
        bound = _bound(answer, id_server)
        if bound is not None:
            await self._store.bound(user_id, bound)

    async def unbind(self, user_id: str, medium: str, address: str, id_server: str | None) -> bool:
        """Has the address (canonical) told no more; without a server, by all that are known to tell it.

        False where that is none, or one does not support it. Raises 400, 403 or 404 with what a server refuses.
        """
        if id_server is not None:
            servers = [self._rules.check_identity_server(id_server)]
        else:
            known = await self._store.bindings(user_id)
            servers = [one.id_server for one in known if (one.medium, one.address) == (medium, address)]
        done = [await self._unbind(user_id, Binding(medium, address, server)) for server in servers]
        return bool(done) and all(done)

    async def try_unbind(self, user_id: str, medium: str, address: str, id_server: str | None) -> bool:
        """Like `unbind`, where what comes next does not depend on it: False whatever a server says."""
        if id_server is not None:
            self._rules.check_identity_server(id_server)
        try:
            return await self.unbind(user_id, medium, address, id_server)
        except MatrixError as error:
            # Without what the server says, which may have the address in it.
            logger.warning("An address of %s could not be unbound: %d %s", user_id, error.code, error.errcode)
            return False

    async def of_user(self, user_id: str, id_server: str | None) -> list[Binding]:
        """What would have to be unbound for none of the user's addresses to be told any more: wherever they were bound,
        or all of them at one server, those included that were only added here. Raises 400 for a server that cannot be
        asked.
        """
        known = await self._store.bindings(user_id)
        if id_server is None:
            return known
        self._rules.check_identity_server(id_server)
        added = await self._store.of_user(user_id)
        at_server = {one for one in known if one.id_server == id_server}
        return sorted(at_server | {Binding(one.medium, one.address, id_server) for one in added})

    async def unbind_each(self, user_id: str, bindings: list[Binding]) -> bool:
        """Unbinds all of them, at the same time; whether that succeeded."""
        return all(await gather(self.try_unbind(user_id, *binding) for binding in bindings))

    async def _unbind(self, user_id: str, binding: Binding) -> bool:
        path = f"{_API}/unbind"
        body = {"mxid": user_id, "threepid": {"medium": binding.medium, "address": binding.address}}
        signed = authorization(self._server_name, self._key(), binding.id_server, "POST", path, body)
        answer = await self._post(binding.id_server, "/unbind", body, signed)
        if answer.code in _NO_SUPPORT and not isinstance(answer.json_object().get("errcode"), str):
            return False
        successful(answer, binding.id_server)
        await self._store.unbound(user_id, binding)
        return True

    async def _post(self, id_server: str, path: str, body: dict[str, Any], authorized: str) -> ClientAnswer:
        headers = (("Authorization", authorized), ("Content-Type", "application/json"))
        url = f"https://{id_server}{_API}{path}"
        try:
            return await self._client().request(
                "POST", url, canonical_json.encode_lenient(body), headers, within=WITHIN, max_answer=MAX_ANSWER
            )
        except ClientError:
            raise unknown(f"The identity server {id_server} cannot be reached.") from None


def _bound(answer: dict[str, Any], id_server: str) -> Binding | None:
    """What a server says that it has bound; None where it makes no sense, so that it cannot be unbound by itself."""
    medium, address = answer.get("medium"), answer.get("address")
    if medium not in MEDIA or not isinstance(address, str) or not 0 < len(address) <= _MAX_ADDRESS:
        logger.warning("The identity server %s does not say which address it has bound", id_server)
        return None
    try:
        return Binding(medium, canonical(medium, address), id_server)
    except MatrixError:
        return None if "\x00" in address else Binding(medium, address, id_server)
