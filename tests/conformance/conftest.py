"""Fixtures of the conformance tests."""

from tests.conformance.town import town

__all__ = ["town"]
