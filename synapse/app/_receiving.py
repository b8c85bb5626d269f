"""The services that take in what other servers send: transactions, the events and the ephemeral data in them.

A part of the composition root (`hs.receiving`).
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from synapse.federation.receiving.edus import EduRegistry


class Receiving:
    """One lazily built attribute per service."""

    @cached_property
    def edus(self) -> EduRegistry:
        """Who takes which type of ephemeral data."""
        from synapse.federation.receiving.edus import EduRegistry

        return EduRegistry()
