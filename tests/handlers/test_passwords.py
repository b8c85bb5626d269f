"""Hashes of passwords: of every kind, made anew where they are out of date, and not too many at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from synapse.api.errors import MatrixError
from synapse.handlers.password_hashes import Algorithm, Argon2, Bcrypt
from synapse.handlers.passwords import MAX_WAITING, Passwords

BCRYPT = Bcrypt(4)
ARGON2 = Argon2(1, 16 << 10, 1)


async def at_once(function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)


def passwords(algorithm: Algorithm = BCRYPT, pepper: str = "pepper") -> Passwords:
    return Passwords(pepper, algorithm, 2, at_once)


@pytest.mark.parametrize("made_by", [BCRYPT, ARGON2])
@pytest.mark.parametrize("checked_by", [BCRYPT, ARGON2])
@pytest_twisted.ensureDeferred
async def test_hashes_of_both_kinds_are_checked_whichever_is_made(made_by: Algorithm, checked_by: Algorithm) -> None:
    stored = await passwords(made_by).hash("correct horse")
    assert stored.startswith("$2b$04$" if made_by is BCRYPT else "$argon2id$")
    assert await passwords(checked_by).matches("correct horse", stored)
    assert not await passwords(checked_by).matches("correct horsf", stored)
    assert not await passwords(checked_by, "another pepper").matches("correct horse", stored)


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (BCRYPT, ARGON2),
        (ARGON2, BCRYPT),
        (BCRYPT, Bcrypt(5)),
        (ARGON2, Argon2(2, 16 << 10, 1)),
        (ARGON2, Argon2(1, 32 << 10, 1)),
        (ARGON2, Argon2(1, 16 << 10, 2)),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_was_hashed_otherwise_is_hashed_anew(before: Algorithm, now: Algorithm) -> None:
    stored = await passwords(before).hash("x")
    assert await passwords(before).renewed("x", stored) is None
    renewed = await passwords(now).renewed("x", stored)
    assert renewed is not None
    assert await passwords(before).matches("x", renewed)
    assert await passwords(now).renewed("x", renewed) is None


@pytest.mark.parametrize("stored", ["", "!", "$2b$04$short", "$argon2id$v=19$nonsense", "$argon2id$v=19$m=8,t=1,p=1$$"])
@pytest.mark.parametrize("algorithm", [BCRYPT, ARGON2])
@pytest_twisted.ensureDeferred
async def test_what_is_no_hash_is_nobodys(stored: str, algorithm: Algorithm) -> None:
    assert not await passwords(algorithm).matches("x", stored)
    assert not algorithm.is_current(stored)


@pytest_twisted.ensureDeferred
async def test_without_a_hash_one_is_checked_all_the_same() -> None:
    calls: list[str] = []

    async def noting(function: Callable[..., Any], *args: Any) -> Any:
        calls.append(function.__name__)
        return function(*args)

    kept = Passwords("", BCRYPT, 1, noting)
    assert not await kept.matches("nobody's password", None)
    assert not await kept.matches("nobody's password", None)
    assert calls == ["hash", "check", "check"]
    kept, stored = Passwords("", BCRYPT, 1, noting), await passwords(pepper="").hash("x")
    calls.clear()
    assert await kept.matches("x", stored)
    assert not await kept.matches("x", None)
    assert calls == ["hash", "check", "check"], "the first is no slower for being nobody"


def test_no_more_are_made_at_once_than_may_be_and_the_queue_has_an_end() -> None:
    running: list[Deferred[Any]] = []

    def in_thread(function: Callable[..., Any], *args: Any) -> Deferred[Any]:
        running.append(Deferred())
        return running[-1]

    kept = Passwords("", BCRYPT, 2, in_thread)
    kept._nobodys_hash = "$2b$04$nobody"
    asked = [Deferred.fromCoroutine(kept.matches("x", "$2b$04$x")) for _ in range(2 + MAX_WAITING)]
    assert len(running) == 2
    refused: list[Any] = []
    Deferred.fromCoroutine(kept.matches("x", "$2b$04$x")).addErrback(lambda failure: refused.append(failure.value))
    assert isinstance(refused[0], MatrixError)
    assert (refused[0].code, refused[0].errcode) == (429, "M_LIMIT_EXCEEDED")
    running[0].callback(True)
    assert len(running) == 3
    while any(not each.called for each in running):
        next(each for each in running if not each.called).callback(True)
    assert all(each.called for each in asked)
