"""A worker of any mix: serves what its listeners name and does the duties that `worker_duties` lists.

python -m synapse.app.generic_worker -c homeserver.yaml -c workers/generic_worker.yaml
"""

from __future__ import annotations

import sys

from synapse.app._start import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], "synapse.app.generic_worker"))
