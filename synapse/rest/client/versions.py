"""How others find out what they talk to: the versions of the specification, and the well-known files.

Client-server API, "API Versions", "Server Discovery", "Server Support"; server-server API, "Server discovery".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from synapse.api.errors import not_found
from synapse.api.identifiers import split_server_name
from synapse.http.server import RawJson, Request, encode_json, serves

if TYPE_CHECKING:
    from synapse.config.discovery import DiscoveryConfig

SPEC_VERSIONS = (
    *("r0.0.1", "r0.1.0", "r0.2.0", "r0.3.0", "r0.4.0", "r0.5.0", "r0.6.0", "r0.6.1"),
    *(f"v1.{minor}" for minor in range(1, 20)),
)
# What clients look for by another name than a version of the specification.
UNSTABLE_FEATURES = {
    "org.matrix.msc3391": True,  # deleting account data
    "org.matrix.msc3814": True,  # dehydrated devices
    "org.matrix.msc4222": True,  # the state after the timeline, in /sync
    "uk.half-shot.msc2666.query_mutual_rooms": True,
}


class Versions:
    """`/versions`. The answer is the same for everybody and is encoded once."""

    def __init__(self) -> None:
        self._versions = encode_json({"versions": SPEC_VERSIONS, "unstable_features": UNSTABLE_FEATURES})

    @serves("versions")
    async def versions(self, request: Request) -> RawJson:
        return RawJson(self._versions)


class WellKnown:
    """`/.well-known/matrix`: where clients and other servers find this one, and whom people can ask.

    :param client_baseurl: the URL under which clients reach this server.
    """

    def __init__(self, server_name: str, client_baseurl: str, config: DiscoveryConfig) -> None:
        self._client = encode_json(config.for_clients(client_baseurl))
        # Who has a port in the server's name asks for no file.
        _, port = split_server_name(server_name)
        self._server = {"m.server": server_name if port is not None else f"{server_name}:443"}
        self._serves_server = config.serve_server_wellknown
        self._support = _support(config)

    @serves("well_known_client")
    async def client(self, request: Request) -> RawJson:
        return RawJson(self._client)

    @serves("well_known_server")
    async def server(self, request: Request) -> dict[str, str]:
        if not self._serves_server:
            raise not_found("Other servers find this one without this file.")
        return self._server

    @serves("well_known_support")
    async def support(self, request: Request) -> dict[str, Any]:
        if not self._support:
            raise not_found("This server does not say whom to ask about it.")
        return self._support


def _support(config: DiscoveryConfig) -> dict[str, Any]:
    """Empty where nobody is named."""
    found: dict[str, Any] = {}
    if config.support_contacts:
        named = [msgspec.structs.asdict(contact) for contact in config.support_contacts]
        found["contacts"] = [{name: value for name, value in one.items() if value is not None} for one in named]
    if config.support_page is not None:
        found["support_page"] = config.support_page
    return found
