"""The grammar of identifiers, by the tables of the appendices and at its edges."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse.api import identifiers as ids
from synapse.api.errors import MatrixError

SERVERS = [
    "matrix.org",
    "matrix.org:8888",
    "1.2.3.4",
    "1.2.3.4:1234",
    "[1234:5678::abcd]",
    "[1234:5678::abcd]:5678",
    "localhost",
    "EXAMPLE.org",
]
NOT_SERVERS = ["", ":80", "a b", "a:", "a:123456", "a:65536", "256.1.1.1", "[::1", "[12345::]", "a/b", "ü.de", "a:1:2"]


@pytest.mark.parametrize("name", SERVERS)
def test_server_names(name: str) -> None:
    assert ids.is_server_name(name)
    assert ids.is_user_id(f"@a:{name}")


@pytest.mark.parametrize("name", NOT_SERVERS)
def test_not_server_names(name: str) -> None:
    assert not ids.is_server_name(name)
    assert not ids.is_user_id(f"@a:{name}")


def test_split_server_name() -> None:
    assert ids.split_server_name("a.b:80") == ("a.b", 80)
    assert ids.split_server_name("a.b") == ("a.b", None)
    assert ids.split_server_name("[::1]") == ("[::1]", None)
    assert ids.split_server_name("[::1]:80") == ("[::1]", 80)


@pytest.mark.parametrize(
    ("user_id", "historical", "compliant", "strict"),
    [
        ("@alice:a.b", True, True, True),
        ("@a._=-/+9:a.b", True, True, True),
        ("@Alice:a.b", True, True, False),
        ("@a b:a.b", True, False, False),
        ("@:a.b", True, False, False),
        ("@é:a.b", True, False, False),
        ("@\U0001f600:a.b", True, False, False),
        ("@a\x00b:a.b", False, False, False),
        ("@a\ud800:a.b", False, False, False),
        ("alice:a.b", False, False, False),
        ("@alice", False, False, False),
        ("@" + "a" * 250 + ":a.b", True, True, True),
        ("@" + "a" * 251 + ":a.b", False, False, False),
        ("@" + "é" * 125 + ":a.b", True, False, False),
        ("@" + "é" * 126 + ":a.b", False, False, False),
    ],
)
def test_user_ids(user_id: str, historical: bool, compliant: bool, strict: bool) -> None:
    assert ids.is_user_id(user_id) is historical
    assert ids.is_compliant_user_id(user_id) is compliant
    assert ids.is_strict_user_id(user_id) is strict


def test_parts() -> None:
    assert ids.parse_user_id("@a:b:80") == ("a", "b:80")
    assert ids.domain_of("@a:b:80") == "b:80"
    assert ids.localpart_of("@a:b:80") == "a"
    assert ids.domain_of("!" + "x" * 43) == ""
    with pytest.raises(MatrixError, match="M_INVALID_PARAM"):
        ids.parse_user_id("nobody")


def test_error_message_shows_no_control_characters() -> None:
    with pytest.raises(MatrixError) as caught:
        ids.parse_room_alias("#\n\x1b" + "x" * 500)
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 200


def test_room_ids_with_and_without_domain() -> None:
    assert ids.is_room_id("!abc:a.b")
    assert ids.is_room_id("!" + "x" * 43)
    assert ids.is_room_id_without_domain("!" + "x" * 43)
    assert not ids.is_room_id("!" + "x" * 42)
    assert not ids.is_room_id("!" + "x" * 42 + "/")
    assert not ids.is_room_id_without_domain("!abc:a.b")
    assert ids.create_id_of_room(ids.room_id_of_create("$" + "x" * 43)) == "$" + "x" * 43


def test_event_ids() -> None:
    assert ids.is_event_id("$x:a.b")
    assert ids.is_event_id("$" + "x" * 43)
    assert not ids.is_event_id("$")
    assert not ids.is_event_id("$" + "x" * 255)


def test_new_identifiers_follow_the_grammar_and_differ() -> None:
    assert ids.is_room_id(ids.new_room_id("a.b"))
    assert ids.is_event_id(ids.new_event_id("a.b"))
    assert ids.new_device_id() != ids.new_device_id()


def test_new_user_ids() -> None:
    assert ids.check_new_user_id("bob", "a.b") == "@bob:a.b"
    for bad in ("", "Bob", "b:ob", "b" * 255):
        with pytest.raises(MatrixError, match="M_INVALID_USERNAME"):
            ids.check_new_user_id(bad, "a.b")


@pytest.mark.parametrize(("name", "localpart"), [("Bob", "bob"), ("a#b", "a=23b"), ("á", "=c3=a1"), ("a=b", "a=3db")])
def test_mapping(name: str, localpart: str) -> None:
    assert ids.map_to_localpart(name) == localpart


def test_case_sensitive_mapping() -> None:
    assert ids.map_to_localpart("A_b", case_sensitive=True) == "_a__b"


@given(st.text(min_size=1, max_size=40))
def test_mapping_always_gives_a_strict_localpart(name: str) -> None:
    assert ids.is_valid_localpart(ids.map_to_localpart(name))
    assert ids.is_valid_localpart(ids.map_to_localpart(name, case_sensitive=True))


@given(st.text())
def test_no_text_breaks_the_parsers(text: str) -> None:
    for prefix in ("", "@", "!", "#", "$"):
        ids.is_user_id(prefix + text)
        ids.is_room_id(prefix + text)
        ids.is_room_alias(prefix + text)
        ids.is_event_id(prefix + text)
        ids.is_server_name(text)
