"""What this server asks of passwords that users choose: `password_config.policy`.

Clients are told by `GET /password_policy`, so that they can say so before the server has to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from synapse.api.errors import Codes, MatrixError
from synapse.handlers.passwords import check_acceptable

if TYPE_CHECKING:
    from synapse.config.accounts import PasswordPolicyOptions


class PasswordPolicy:
    """Checks passwords that users choose; those that administrators give them are not held to it."""

    def __init__(self, options: PasswordPolicyOptions) -> None:
        self._options = options

    def described(self) -> dict[str, Any]:
        """What is asked, under the names that clients know; nothing where no policy is enabled."""
        options = self._options
        if not options.enabled:
            return {}
        flags = {
            "m.require_digit": options.require_digit,
            "m.require_symbol": options.require_symbol,
            "m.require_lowercase": options.require_lowercase,
            "m.require_uppercase": options.require_uppercase,
        }
        return {"m.minimum_length": options.minimum_length, **flags}

    def check(self, password: str) -> None:
        """Raises 400 M_WEAK_PASSWORD or one of its kinds, such as M_PASSWORD_TOO_SHORT; M_INVALID_PARAM."""
        check_acceptable(password)
        options = self._options
        if not options.enabled:
            return
        if len(password) < options.minimum_length:
            raise _weak(Codes.PASSWORD_TOO_SHORT, f"at least {options.minimum_length} characters")
        for is_asked, test, code, what in (
            (options.require_digit, str.isdigit, Codes.PASSWORD_NO_DIGIT, "a digit"),
            (options.require_symbol, _is_symbol, Codes.PASSWORD_NO_SYMBOL, "a character that is no letter or digit"),
            (options.require_uppercase, str.isupper, Codes.PASSWORD_NO_UPPERCASE, "an upper-case letter"),
            (options.require_lowercase, str.islower, Codes.PASSWORD_NO_LOWERCASE, "a lower-case letter"),
        ):
            if is_asked and not any(test(character) for character in password):
                raise _weak(code, what)


def _is_symbol(character: str) -> bool:
    return not character.isalnum()


def _weak(code: str, what: str) -> MatrixError:
    return MatrixError(400, code, f"The password must have {what}.")
