"""Registrations of application services, and what belongs to whom by them."""

from __future__ import annotations

from typing import Any

import pytest

from synapse.api.app_services import AppServices, BadRegistration, check_own_user, parse, together
from synapse.api.errors import MatrixError

IRC: dict[str, Any] = {
    "id": "irc",
    "url": "http://127.0.0.1:1234/",
    "as_token": "the service's token",
    "hs_token": "the server's token",
    "sender_localpart": "_irc_bot",
    "namespaces": {
        "users": [{"exclusive": True, "regex": "@_irc_.*"}, {"exclusive": False, "regex": "@shared"}],
        "aliases": [{"exclusive": True, "regex": "#_irc_"}, {"exclusive": False, "regex": "#open"}],
        "rooms": [],
    },
}
OTHER: dict[str, Any] = {
    **IRC,
    "id": "other",
    "url": None,
    "as_token": "another",
    "sender_localpart": "other",
    "namespaces": {"aliases": None},
    "rate_limited": False,
}


def read(**changes: Any) -> Any:
    return parse({**IRC, **changes}, "test")


def refused(services: AppServices, name: str, by: str | None) -> bool:
    check = services.check_user if name.startswith("@") else services.check_alias
    try:
        check(name, by)
    except MatrixError as error:
        return (error.code, error.errcode) == (400, "M_EXCLUSIVE")
    return False


def test_a_registration() -> None:
    irc = read()
    assert (irc.id, irc.url, irc.sender) == ("irc", "http://127.0.0.1:1234", "@_irc_bot:test")
    assert irc.rate_limited
    assert not irc.receive_ephemeral
    assert "token" not in repr(irc)
    assert [irc.has_user(name) for name in ("@_irc_x:test", "@shared:test", "@_irc_bot:test")] == [True] * 3
    assert [irc.has_user(name) for name in ("@_irc_x:elsewhere", "@alice:test", "x@_irc_x:test", "")] == [False] * 4
    assert read(url="").url is None
    assert read(url=None).url is None


@pytest.mark.parametrize(
    ("name", "by", "expected"),
    [
        ("@_irc_x:test", None, True),
        ("@_irc_x:test", "irc", False),
        ("@_irc_x:test", "other", True),
        ("@_irc_bot:test", None, True),
        ("@other:test", "irc", True),
        ("@shared:test", None, False),
        ("@alice:test", None, False),
        ("#_irc_x:test", None, True),
        ("#_irc_x:test", "irc", False),
        ("#open:test", None, False),
        ("#open:test", "irc", False),
        ("#else:test", "irc", True),
        ("#else:test", None, False),
        ("#open:test", "other", True),
    ],
)
def test_what_is_kept_for_whom(name: str, by: str | None, expected: bool) -> None:
    services = together([read(), parse(OTHER, "test")])
    assert refused(services, name, by) == expected


def test_rate_limits_do_not_hold_for_the_sender_nor_for_whom_they_are_switched_off() -> None:
    assert [read().limits(name) for name in ("@_irc_x:test", "@_irc_bot:test")] == [True, False]
    assert not parse(OTHER, "test").limits("@any:test")


def test_a_service_logs_in_as_its_own_users() -> None:
    check_own_user(read(), "@_irc_x:test")
    with pytest.raises(MatrixError, match="outside"):
        check_own_user(read(), "@alice:test")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"id": None}, "must have `id`"),
        ({"id": 5}, "must have `id`"),
        ({"as_token": ""}, "must have `as_token`"),
        ({"hs_token": None}, "must have `hs_token`"),
        ({"sender_localpart": None}, "must have `sender_localpart`"),
        ({"sender_localpart": "Ä B"}, "no user name"),
        ({"url": "ftp://x"}, "http://"),
        ({"url": 5}, "http://"),
        ({"namespaces": None}, "must have `namespaces`"),
        ({"namespaces": []}, "must have `namespaces`"),
        ({"namespaces": {"users": {}}}, "no list"),
        ({"namespaces": {"users": [5]}}, "`exclusive"),
        ({"namespaces": {"users": [{"regex": "x"}]}}, "`exclusive"),
        ({"namespaces": {"rooms": [{"exclusive": True}]}}, "without a `regex`"),
        ({"namespaces": {"aliases": [{"exclusive": True, "regex": "("}]}}, "that is none"),
        ({"rate_limited": "no"}, "neither true nor false"),
        ({"protocols": "irc"}, "no list of texts"),
    ],
)
def test_what_is_no_registration(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(BadRegistration, match=problem) as caught:
        read(**changes)
    assert "token'" not in str(caught.value)


def test_what_else_is_no_registration() -> None:
    for given in (None, [], "text"):
        with pytest.raises(BadRegistration, match="no mapping"):
            parse(given, "test")
    without = {key: value for key, value in IRC.items() if key != "url"}
    with pytest.raises(BadRegistration, match="must have `url`"):
        parse(without, "test")


@pytest.mark.parametrize("same", ["id", "as_token", "sender_localpart"])
def test_two_services_can_be_told_apart(same: str) -> None:
    with pytest.raises(BadRegistration, match=f"the same `{same}`"):
        together([read(), parse({**OTHER, same: IRC[same]}, "test")])
