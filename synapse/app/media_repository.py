"""Keeps, serves and cleans up media.

python -m synapse.app.media_repository -c homeserver.yaml -c workers/media_repository.yaml
"""

from __future__ import annotations

import sys

from synapse.app._start import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], "synapse.app.media_repository"))
