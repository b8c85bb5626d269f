"""Sends events to application services. One is active; others stand by.

python -m synapse.app.appservice -c homeserver.yaml -c workers/appservice.yaml
"""

from __future__ import annotations

import sys

from synapse.app._start import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], "synapse.app.appservice"))
