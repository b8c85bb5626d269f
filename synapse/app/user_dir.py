"""Keeps the user directory, and serves searches in it.

python -m synapse.app.user_dir -c homeserver.yaml -c workers/user_dir.yaml
"""

from __future__ import annotations

import sys

from synapse.app._start import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], "synapse.app.user_dir"))
