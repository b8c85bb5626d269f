"""A provider that others wrote: oidc-provider-mock, built with Authlib's server side."""

from __future__ import annotations

import os
import warnings


def main() -> None:
    """Serves at a port of the system's choice, whose URL is printed first."""
    os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"  # without TLS, on loopback
    warnings.simplefilter("ignore")
    from oidc_provider_mock import app
    from oidc_provider_mock._storage import User
    from werkzeug.serving import make_server

    alice = User(sub="alice@example.org", claims={"name": "Alice", "email": "alice@example.org"})
    server = make_server("127.0.0.1", 0, app(require_nonce=True, user_claims=[alice]), threaded=True)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
