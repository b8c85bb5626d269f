"""Fixtures of the endpoints' tests."""

from tests.rest.accounts import server
from tests.rest.oidc import idp, oidc_process

__all__ = ["idp", "oidc_process", "server"]
