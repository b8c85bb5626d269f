"""Serves what clients only read, logins and registrations.

python -m synapse.app.client_reader -c homeserver.yaml -c workers/client_reader.yaml
"""

from __future__ import annotations

import sys

from synapse.app._start import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], "synapse.app.client_reader"))
