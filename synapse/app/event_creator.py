"""Creates events of local users and hands them to the main process to be written.

python -m synapse.app.event_creator -c homeserver.yaml -c workers/event_creator.yaml
"""

from __future__ import annotations

import sys

from synapse.app._start import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], "synapse.app.event_creator"))
