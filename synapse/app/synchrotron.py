"""Serves `sync` requests of clients. Several may run; it is best if one user's requests all go to one of them.

python -m synapse.app.synchrotron -c homeserver.yaml -c workers/synchrotron.yaml
"""

from __future__ import annotations

import sys

from synapse.app._start import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], "synapse.app.synchrotron"))
