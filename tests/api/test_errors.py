"""Errors keep everything that they were given, in answers and in copies."""

from __future__ import annotations

import copy
import pickle

from synapse.api import errors
from synapse.api.errors import AuthError, Codes, MatrixError


def test_body_has_code_sentence_and_fields() -> None:
    error = errors.limit_exceeded(1500)
    assert error.code == 429
    assert error.body() == {"errcode": "M_LIMIT_EXCEEDED", "error": "Too many requests.", "retry_after_ms": 1500}


def test_fields_cannot_replace_the_code() -> None:
    error = MatrixError(400, Codes.UNKNOWN, "no", error="other")
    assert error.body() == {"errcode": "M_UNKNOWN", "error": "no"}


def test_unknown_token_says_whether_the_device_lives_on() -> None:
    assert errors.unknown_token().body()["soft_logout"] is False
    assert errors.unknown_token(soft_logout=True).body()["soft_logout"] is True


def test_copies_and_pickles_are_whole() -> None:
    for error in (errors.incompatible_room_version("99"), AuthError("You are banned.", reason="x")):
        for other in (copy.copy(error), pickle.loads(pickle.dumps(error))):
            assert type(other) is type(error)
            assert (other.code, other.body()) == (error.code, error.body())


def test_codes_are_named_after_themselves() -> None:
    names = {name: value for name, value in vars(Codes).items() if name.isupper()}
    assert names
    assert all(value == "M_" + name for name, value in names.items())
