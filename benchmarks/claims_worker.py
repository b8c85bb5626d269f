"""A worker that claims keys too, which is the main process's business otherwise: for `benchmarks.claims`."""

from __future__ import annotations

import dataclasses
import sys

from synapse.api.routes import find
from synapse.app import _start, applications
from synapse.app.applications import Application
from synapse.config import Config


def _main() -> int:
    plain = applications.application_of

    def with_claims(config: Config) -> Application:
        application = plain(config)
        return dataclasses.replace(application, endpoints=(*application.endpoints, find("keys_claim")))

    applications.application_of = with_claims
    return _start.main(sys.argv[1:], "synapse.app.client_reader")


if __name__ == "__main__":
    sys.exit(_main())
