"""Endpoints for cross-signing: uploading a user's keys, and signatures.

Client-server API, "Cross-signing".
"""

from __future__ import annotations

from typing import Any, Final

from synapse.api.errors import unknown
from synapse.handlers.cross_signing import CrossSigning
from synapse.handlers.key_signatures import KeySignatures
from synapse.handlers.ui_auth import Operation, UiAuth
from synapse.handlers.ui_stages.oauth import OAuthStage, named
from synapse.http.server import Request, serves
from synapse.storage.cross_signing import USAGES

_ATTEMPTS: Final = 3


class CrossSigningEndpoints:
    """`/keys/device_signing/upload` and `/keys/signatures/upload`.

    :param oauth: the stage of those who come from the authorization server; None where nobody does.
    """

    def __init__(
        self, keys: CrossSigning, signatures: KeySignatures, ui_auth: UiAuth, oauth: OAuthStage | None
    ) -> None:
        self._keys = keys
        self._signatures = signatures
        self._ui_auth = ui_auth
        self._oauth = oauth

    @serves("keys_device_signing_upload")
    async def upload_keys(self, request: Request) -> dict[str, Any]:
        body, user_id = request.json_object(), request.user.user_id
        # Application services act for users who have nothing to prove themselves by.
        proven = request.user.app_service is not None
        if "auth" in body and not any(f"{usage}_key" in body for usage in USAGES):
            body, proven = await self._prove(request, body), True  # the keys came with the session's first request
        for _ in range(_ATTEMPTS):
            upload = await self._keys.check(user_id, body)
            if upload.needs_proof and not proven:
                body, proven = await self._prove(request, body), True
                upload = await self._keys.check(user_id, body)
            if await self._keys.publish(upload):
                return {}
        raise unknown("Others have uploaded keys for you at the same time; please try again.", 409)

    @serves("keys_signatures_upload")
    async def upload_signatures(self, request: Request) -> dict[str, Any]:
        return await self._signatures.upload(request.user.user_id, request.json_object())

    async def _prove(self, request: Request, body: dict[str, Any]) -> dict[str, Any]:
        user_id = request.user.user_id
        operation = Operation(request.method, "keys_device_signing_upload", "replace your cross-signing keys", user_id)
        if self._oauth is not None and request.user.via_oauth:
            flows, body = await self._oauth.flows(), named(body)
        else:
            flows = await self._ui_auth.own_flows(user_id)
        return (await self._ui_auth.check(operation, body, flows, request)).body
