"""The main process: it writes the streams, serves every endpoint, and does each duty that no worker has.

python -m synapse.app.homeserver -c homeserver.yaml
"""

from __future__ import annotations

import sys

from synapse.app._start import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], "synapse.app.homeserver"))
