"""Sends events to other servers. One is active; others stand by.

python -m synapse.app.federation_sender -c homeserver.yaml -c workers/federation_sender.yaml
"""

from __future__ import annotations

import sys

from synapse.app._start import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], "synapse.app.federation_sender"))
