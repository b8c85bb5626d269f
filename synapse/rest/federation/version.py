"""`/_matrix/federation/v1/version`: what runs here."""

from __future__ import annotations

from typing import Any

from synapse import __version__
from synapse.http.server import Request, serves


class FederationVersion:
    """Name and version of this software."""

    @serves("federation_version")
    async def version(self, request: Request) -> dict[str, Any]:
        return {"server": {"name": "Synapse", "version": __version__}}
