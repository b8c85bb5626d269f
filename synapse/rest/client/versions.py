"""How clients find out what they talk to: the versions of the specification, and the well-known file.

Client-server API, "API Versions" and "Server Discovery".
"""

from __future__ import annotations

from synapse.http.server import RawJson, Request, encode_json, serves

SPEC_VERSIONS = (
    *("r0.0.1", "r0.1.0", "r0.2.0", "r0.3.0", "r0.4.0", "r0.5.0", "r0.6.0", "r0.6.1"),
    *(f"v1.{minor}" for minor in range(1, 20)),
)
# What clients look for by another name than a version of the specification.
UNSTABLE_FEATURES = {
    "org.matrix.msc3391": True,  # deleting account data
    "org.matrix.msc4222": True,  # the state after the timeline, in /sync
    "uk.half-shot.msc2666.query_mutual_rooms": True,
}


class Versions:
    """Both answers are the same for everybody and are encoded once.

    :param client_baseurl: the URL under which clients reach this server.
    """

    def __init__(self, client_baseurl: str) -> None:
        self._versions = encode_json({"versions": SPEC_VERSIONS, "unstable_features": UNSTABLE_FEATURES})
        self._well_known = encode_json({"m.homeserver": {"base_url": client_baseurl}})

    @serves("versions")
    async def versions(self, request: Request) -> RawJson:
        return RawJson(self._versions)

    @serves("well_known_client")
    async def well_known_client(self, request: Request) -> RawJson:
        return RawJson(self._well_known)
