"""What is asked of passwords that people choose."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted

from synapse.api.errors import MatrixError
from synapse.config.accounts import PasswordPolicyOptions
from synapse.handlers.password_policy import PasswordPolicy
from synapse.storage.database import Database
from tests.rest.accounts import Server, error

STRICT: dict[str, Any] = {
    "enabled": True,
    "minimum_length": 8,
    **{f"require_{what}": True for what in ("digit", "symbol", "lowercase", "uppercase")},
}


@pytest.mark.parametrize(
    ("password", "errcode"),
    [
        ("", "M_WEAK_PASSWORD"),
        ("Aa1!", "M_PASSWORD_TOO_SHORT"),
        ("Aaaaaaa!", "M_PASSWORD_NO_DIGIT"),
        ("Aaaaaaa1", "M_PASSWORD_NO_SYMBOL"),
        ("aaaaaa1!", "M_PASSWORD_NO_UPPERCASE"),
        ("AAAAAA1!", "M_PASSWORD_NO_LOWERCASE"),
        ("A1!" + "a" * 600, "M_INVALID_PARAM"),
        ("Aaaaaa1!", None),
        ("Ää 1aaaaa", None),
    ],
)
def test_a_strict_policy(password: str, errcode: str | None) -> None:
    policy = PasswordPolicy(PasswordPolicyOptions(**STRICT))
    if errcode is None:
        policy.check(password)
        return
    with pytest.raises(MatrixError) as caught:
        policy.check(password)
    assert (caught.value.code, caught.value.errcode) == (400, errcode)


def test_a_policy_that_is_not_enabled_asks_nothing() -> None:
    policy = PasswordPolicy(PasswordPolicyOptions(**{**STRICT, "enabled": False}))
    policy.check("a")
    assert policy.described() == {}


@pytest_twisted.ensureDeferred
async def test_the_policy_is_told_and_held_to(database: Database) -> None:
    server = Server(database, password_config={"policy": STRICT})
    told = {"m.minimum_length": 8, **{f"m.require_{what[8:]}": True for what in STRICT if what.startswith("require")}}
    assert (await server.call("GET", "/password_policy")).json == told
    assert (await server.call("GET", "/_matrix/client/r0/password_policy")).json == told
    weak = await server.call("POST", "/register", {"username": "alice", "password": "weak"})
    assert error(weak) == (400, "M_PASSWORD_TOO_SHORT")
    token = await server.register("alice", "Strong1!")
    for body in ({"new_password": "weak"}, {"new_password": "weak", "auth": {"type": "m.login.password"}}):
        assert error(await server.call("POST", "/account/password", body, token)) == (400, "M_PASSWORD_TOO_SHORT")
