"""Takes frequent client requests from the main process and passes on what it cannot answer.

python -m synapse.app.frontend_proxy -c homeserver.yaml -c workers/frontend_proxy.yaml
"""

from __future__ import annotations

import sys

from synapse.app._start import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], "synapse.app.frontend_proxy"))
