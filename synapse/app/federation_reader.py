"""Serves what other servers ask of this one.

python -m synapse.app.federation_reader -c homeserver.yaml -c workers/federation_reader.yaml
"""

from __future__ import annotations

import sys

from synapse.app._start import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], "synapse.app.federation_reader"))
