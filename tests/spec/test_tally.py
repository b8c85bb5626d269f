"""What several processes of one run have seen comes together, and the death of one of them is a failure."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests.spec.answers import Tally
from tests.support import side_by_side


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> Any:
    """That of the process that started the others, in which nothing is asked."""
    monkeypatch.setattr(side_by_side, "tally", lambda: None)
    return SimpleNamespace(stash=pytest.Stash())


def _end(config: Any, workeroutput: dict[str, Any], error: object = None) -> None:
    side_by_side.pytest_testnodedown(SimpleNamespace(config=config, workeroutput=workeroutput), error)


def _finish(config: Any) -> Any:
    session: Any = SimpleNamespace(config=config, exitstatus=pytest.ExitCode.OK)
    side_by_side.pytest_sessionfinish(session)
    return session.exitstatus


def test_what_each_has_seen_is_added_up(config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert side_by_side.tally_of_all(config) is None
    for succeeded in (["join", "sync"], ["sync", "whoami"]):
        worker: Any = SimpleNamespace(stash=pytest.Stash(), workeroutput={})
        monkeypatch.setattr(side_by_side, "tally", lambda succeeded=succeeded: Tally(succeeded, 9))
        _finish(worker)
        _end(config, worker.workeroutput)
    monkeypatch.setattr(side_by_side, "tally", lambda: None)
    _end(config, {"tally": None})
    assert side_by_side.tally_of_all(config) == (["join", "sync", "whoami"], 9)
    assert _finish(config) == pytest.ExitCode.OK


def test_a_process_that_dies_fails_the_run(config: Any) -> None:
    _end(config, {}, "Not properly terminated")
    assert _finish(config) == pytest.ExitCode.INTERNAL_ERROR


def test_long_ones_come_first_in_one_of_several_processes() -> None:
    names = ["tests/api/a", "tests/rest/b", "tests/api/c", "tests/cluster/d"]
    one: Any = SimpleNamespace()
    several: Any = SimpleNamespace(workerinput={})
    items: Any = [SimpleNamespace(nodeid=name) for name in names]
    side_by_side.pytest_collection_modifyitems(one, items)
    assert [item.nodeid for item in items] == names
    side_by_side.pytest_collection_modifyitems(several, items)
    assert [item.nodeid[6:] for item in items] == ["cluster/d", "rest/b", "api/a", "api/c"]
