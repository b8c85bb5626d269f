"""Tokens that clients hand back, and whatever else they may send in their place."""

from __future__ import annotations

import pytest
import pytest_twisted
from hypothesis import given, settings
from hypothesis import strategies as st

from synapse.api.errors import MatrixError
from synapse.storage.database import Database
from synapse.sync.tokens import RoomToken, StreamToken
from tests.sync.harness import Harness

ALICE = "@alice:test"

TEXTS = st.one_of(st.text(), st.from_regex(r"s-?[0-9]{0,22}(_[0-9]{0,22}){0,9}~?"), st.from_regex(r"t[0-9]+-[0-9]+.*"))


@settings(deadline=None)
@given(TEXTS)
def test_anything_is_a_token_or_is_refused(text: str) -> None:
    for kind in (StreamToken, RoomToken):
        refused = None
        try:
            token = kind.parse(text)
        except MatrixError as error:
            refused = (error.code, error.errcode)
        assert refused == (400, "M_INVALID_PARAM") if refused else kind.parse(str(token)) == token


@settings(deadline=None)
@given(st.builds(StreamToken, *[st.integers(0, 2**62)] * len(StreamToken._fields)))
def test_tokens_are_read_as_they_are_written(token: StreamToken) -> None:
    assert StreamToken.parse(str(token)) == token
    assert token.covers(token.at_most(StreamToken()))


@pytest.mark.parametrize("memory", [False, True], ids=["database", "memory"])
@pytest_twisted.ensureDeferred
async def test_forged_tokens_tell_no_more_than_the_user_may_know(database: Database, memory: bool) -> None:
    """Positions that were never given out, or to somebody else, are points in time like others."""
    h = Harness(database, memory=memory)
    room = await h.world.room(ALICE)
    secret = await h.world.room("@bob:test")
    top = 2**62
    for since in ("s0", "s3", f"s{h.world.stream}", f"s{top}", f"s2_{top}_{top}_0_{top}", "s4_0_0_0_0_0_0_0"):
        for state_after in (False, True):
            answer = await h.sync(ALICE, since, device_id=f"{since}{state_after}", state_after=state_after)
            joined = answer.get("rooms", {}).get("join", {})
            assert secret not in joined
            assert StreamToken.parse(answer["next_batch"]) == h.present.token()
            assert (room in joined) == (StreamToken.parse(since).events < 4)
