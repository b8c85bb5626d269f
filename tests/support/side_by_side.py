"""The whole suite in two processes side by side (`pytest -n 2`, by pytest-xdist): who runs what, and in which order.

A file of tests stays in one process, so that what its tests share is made once, and so do all of `tests/cluster`, which
share a server of a dozen processes. What takes longest comes first, and the many small files last, so that both
processes end at about the same time. Each has a PostgreSQL of its own, and tells in the end which operations of the
specification it has seen answered.

pytest finds these hooks in `tests/conftest.py`. In a run of one process they change nothing.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.spec.answers import Tally, tally

_TOGETHER = "tests/cluster/"
_LONG = (
    *(_TOGETHER, "tests/conformance/", "tests/federation/", "tests/handlers/", "tests/rest/"),
    *("tests/app/", "tests/browser/", "tests/storage/", "tests/sync", "tests/test_budgets"),
)
_TALLY = "tally"
_told = pytest.StashKey[list[Tally]]()
_died = pytest.StashKey[bool]()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Hands the next file to whichever process is about to be idle."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _TOGETHER if nodeid.startswith(_TOGETHER) else super()._split_scope(nodeid)

    return Scheduling(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Has one of several processes see the long ones first."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: next((i for i, d in enumerate(_LONG) if item.nodeid.startswith(d)), len(_LONG)))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Has one of several processes tell what was answered in it; fails the run where one of them died."""
    told = tally()
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput[_TALLY] = None if told is None else tuple(told)
    if session.config.stash.get(_died, False):
        session.exitstatus = pytest.ExitCode.INTERNAL_ERROR


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Keeps what one of several processes tells in its end, in the one that started them."""
    if error:
        node.config.stash[_died] = True
    told = getattr(node, "workeroutput", {}).get(_TALLY)
    if told is not None:
        node.config.stash.setdefault(_told, []).append(Tally(*told))


def tally_of_all(config: pytest.Config) -> Tally | None:
    """What was answered in whichever process; None where nothing was asked."""
    tallies = [each for each in (tally(), *config.stash.get(_told, [])) if each is not None]
    if not tallies:
        return None
    return Tally(sorted({name for each in tallies for name in each.succeeded}), max(each.described for each in tallies))
