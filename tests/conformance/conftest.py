"""Fixtures of the conformance tests."""

from tests.conformance.town import town, workers

__all__ = ["town", "workers"]
