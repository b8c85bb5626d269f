"""Fixtures of the endpoints' tests."""

from tests.rest.accounts import server

__all__ = ["server"]
