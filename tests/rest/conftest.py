"""Fixtures of the endpoints' tests."""

from tests.rest.accounts import server
from tests.rest.oauth import away, oauth_process
from tests.rest.oidc import idp, oidc_process

__all__ = ["away", "idp", "oauth_process", "oidc_process", "server"]
