"""What is told besides events and is over soon: the latest word on each matter, in the forms of the specification."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from synapse.federation.sending.edus import (
    MAX_PRESENCE,
    MAX_RECEIPTS,
    PER_EDU,
    TYPING_FRESH_MS,
    Ephemeral,
    Typist,
)
from synapse.storage.presence import PresenceState
from synapse.storage.receipts import Receipt

NOW = 1_000_000


def receipt(user: str = "@a:us", event_id: str = "$1", room: str = "!r", thread: str = "") -> Receipt:
    return Receipt(room, "m.read", user, thread, event_id, '{"ts":5,"other":1}')


def state(user: str = "@a:us", presence: str = "online", status: str | None = None) -> PresenceState:
    return PresenceState(user, presence, status, NOW - 300, presence == "online")


def taken(ephemeral: Ephemeral, limit: int = 100, now: int = NOW) -> list[tuple[str, dict[str, Any]]]:
    edus, _ = ephemeral.take(limit, now)
    decoded = [orjson.loads(edu) for edu in edus]
    assert all(set(edu) == {"edu_type", "content"} for edu in decoded)
    assert [orjson.dumps(edu, option=orjson.OPT_SORT_KEYS) for edu in decoded] == edus, "they are canonical"
    return [(edu["edu_type"], edu["content"]) for edu in decoded]


def test_forms() -> None:
    ephemeral = Ephemeral()
    ephemeral.add_typist(Typist("!r", "@a:us", True, NOW))
    ephemeral.add_receipt(receipt(thread="main"))
    ephemeral.add_presence(state(status="busy"))
    assert len(ephemeral) == 3
    assert taken(ephemeral) == [
        (
            "m.presence",
            {
                "push": [
                    {
                        "user_id": "@a:us",
                        "presence": "online",
                        "status_msg": "busy",
                        "last_active_ago": 300,
                        "currently_active": True,
                    }
                ]
            },
        ),
        (
            "m.receipt",
            {"!r": {"m.read": {"@a:us": {"event_ids": ["$1"], "data": {"ts": 5, "thread_id": "main"}}}}},
        ),
        ("m.typing", {"room_id": "!r", "user_id": "@a:us", "typing": True}),
    ]
    assert len(ephemeral) == 0


def test_the_latest_word_counts() -> None:
    ephemeral = Ephemeral()
    for typing in (True, False):
        ephemeral.add_typist(Typist("!r", "@a:us", typing, NOW))
    for event_id in ("$1", "$2"):
        ephemeral.add_receipt(receipt(event_id=event_id))
    for presence in ("online", "unavailable"):
        ephemeral.add_presence(state(presence=presence))
    contents = dict(taken(ephemeral))
    assert contents["m.typing"]["typing"] is False
    assert contents["m.receipt"]["!r"]["m.read"]["@a:us"]["event_ids"] == ["$2"]
    assert [each["presence"] for each in contents["m.presence"]["push"]] == ["unavailable"]


def test_receipts_of_one_user_in_several_threads_go_in_edus_of_their_own() -> None:
    ephemeral = Ephemeral()
    for thread in ("", "main", "$root"):
        ephemeral.add_receipt(receipt(thread=thread))
    ephemeral.add_receipt(receipt("@b:us"))
    edus = taken(ephemeral)
    assert len(edus) == 3
    threads = [edu["!r"]["m.read"]["@a:us"]["data"].get("thread_id") for _, edu in edus]
    assert threads == [None, "main", "$root"]


def test_typing_is_told_while_it_is_fresh() -> None:
    ephemeral = Ephemeral()
    ephemeral.add_typist(Typist("!r", "@a:us", True, NOW))
    assert taken(ephemeral, now=NOW + TYPING_FRESH_MS) == []
    assert len(ephemeral) == 0


def test_no_more_than_there_is_room_for() -> None:
    ephemeral = Ephemeral()
    for number in range(5):
        ephemeral.add_typist(Typist(f"!{number}", "@a:us", True, NOW))
        ephemeral.add_receipt(receipt(thread=f"${number}"))
    assert len(taken(ephemeral, 3)) == 3
    assert len(taken(ephemeral, 0)) == 0
    assert len(taken(ephemeral)) == 7


def test_what_is_kept_is_bounded() -> None:
    ephemeral = Ephemeral()
    for number in range(3_000):
        ephemeral.add_presence(state(f"@{number}:us"))
        ephemeral.add_receipt(receipt(f"@{number}:us"))
        ephemeral.add_typist(Typist("!r", f"@{number}:us", True, NOW))
    assert len(ephemeral) < 3_500
    edus = taken(ephemeral, 10_000)
    users = [each["user_id"] for kind, edu in edus if kind == "m.presence" for each in edu["push"]]
    assert len(users) <= PER_EDU
    receipts = [user for kind, edu in edus if kind == "m.receipt" for user in edu["!r"]["m.read"]]
    assert len(receipts) == MAX_RECEIPTS
    assert receipts[-1] == "@2999:us"
    assert len(ephemeral) == MAX_PRESENCE - PER_EDU


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 9), st.booleans()), max_size=20))
def test_what_did_not_arrive_comes_back_behind_what_was_said_since(steps: list[tuple[str, int, bool]]) -> None:
    """Whatever is lost, the last word on each matter is what arrives in the end."""
    ephemeral = Ephemeral()
    last: dict[str, str] = {}
    arrived: dict[str, str] = {}
    for name, number, lost in steps:
        edus, first = ephemeral.take(100, NOW)
        ephemeral.add_receipt(receipt(f"@{name}:us", f"${number}"))
        last[f"@{name}:us"] = f"${number}"
        if lost:
            ephemeral.put_back(first)
        else:
            arrived.update(_events(edus))
    arrived.update(_events(ephemeral.take(100, NOW)[0]))
    assert arrived == last


def _events(edus: list[bytes]) -> dict[str, str]:
    return {
        user: entry["event_ids"][0]
        for edu in edus
        for user, entry in orjson.loads(edu)["content"]["!r"]["m.read"].items()
    }
