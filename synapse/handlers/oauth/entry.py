"""What can be said of a request with a token of the authorization server before anybody is asked about the token."""

from __future__ import annotations

import re
from typing import Final

from synapse.api.errors import forbidden
from synapse.handlers.tokens import ACCESS

MAX_TOKEN: Final = 4096
_TOKEN: Final = re.compile(r"[\x21-\x7e]+")  # RFC 6749, A.12

# What belongs to the other API, or needs interactive authentication, which this one does not have.
_ELSEWHERE: Final = frozenset(
    {
        *("logout", "logout_all", "login_get_token"),
        *("account_password", "account_deactivate", "device_delete", "delete_devices"),
        *("threepids_add_old", "threepids_add", "threepids_delete"),
    }
)


def may_be_one(token: str) -> bool:
    """False for what the authorization server need not be asked about; tokens of our own are known by their look."""
    return len(token) <= MAX_TOKEN and not token.startswith(ACCESS) and _TOKEN.fullmatch(token) is not None


def check_operation(operation: str) -> None:
    """Raises 403 M_FORBIDDEN for what is done at the authorization server instead. `operation`: an endpoint's name."""
    if operation in _ELSEWHERE:
        raise forbidden("You have logged in at this server's authorization server; please do this on its pages.")
