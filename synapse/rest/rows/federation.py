"""What answers other servers: the server-server API, a section per subject."""

from __future__ import annotations

from synapse.rest.rows.types import Row

ROWS: tuple[Row, ...] = ()
