"""Pid files: stale ones, live ones, and those that change hands."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from synapse.app._daemon import PidFile, replaced_process
from synapse.config import ConfigError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.pid"


def pid_file(path: Path, replaces: int | None = None) -> PidFile:
    return PidFile(str(path), "pid_file", "homeserver.yaml", replaces)


def test_it_is_written_and_removed(path: Path) -> None:
    file = pid_file(path)
    file.check()
    assert not path.exists()
    file.write()
    assert path.read_text() == f"{os.getpid()}\n"
    file.remove()
    assert not path.exists()


def test_a_live_one_is_respected(path: Path) -> None:
    live = pid_file(path)
    live.write()
    for attempt in (pid_file(path).check, pid_file(path).write):
        with pytest.raises(ConfigError) as caught:
            attempt()
        assert (caught.value.file, caught.value.option) == ("homeserver.yaml", "pid_file")
        assert f"process {os.getpid()} is already running" in caught.value.problem
    assert path.read_text() == f"{os.getpid()}\n"


@pytest.mark.parametrize("content", ["1\n", "", "nonsense", "99999999999\n"])
def test_a_stale_one_is_taken_over(path: Path, content: str) -> None:
    path.write_text(content)
    file = pid_file(path)
    file.check()
    file.write()
    assert path.read_text() == f"{os.getpid()}\n"
    file.remove()


def test_the_successor_replaces_it_and_the_old_owner_leaves_it_alone(path: Path) -> None:
    old = pid_file(path)
    old.write()
    new = pid_file(path, replaces=os.getpid())
    new.check()
    new.write()
    old.remove()
    assert path.read_text() == f"{os.getpid()}\n"
    new.remove()
    assert not path.exists()


def test_only_its_own_predecessor_is_replaced(path: Path) -> None:
    pid_file_of_another = pid_file(path)
    pid_file_of_another.write()
    with pytest.raises(ConfigError):
        pid_file(path, replaces=1).write()


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    file = pid_file(tmp_path / "none" / "a.pid")
    file.check()
    with pytest.raises(ConfigError, match=r"cannot be written \(No such file or directory\)"):
        file.write()


@pytest.mark.parametrize(("text", "pid"), [(None, None), ("", None), ("12", 12), ("x", None)])
def test_who_is_replaced(text: str | None, pid: int | None) -> None:
    assert replaced_process(lambda _: text) == pid


def test_an_owner_that_leaves_spares_the_file_that_its_successor_writes_just_then(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = pid_file(path)
    old.write()
    new = pid_file(path, replaces=os.getpid())
    successor = threading.Thread(target=new.write)
    looked_at = os.path.samestat

    def look(one: os.stat_result, other: os.stat_result) -> bool:
        found = looked_at(one, other)
        successor.start()
        successor.join(0.3)  # it must not get between the look and the removal, however long that takes
        return found

    monkeypatch.setattr(os.path, "samestat", look)
    old.remove()
    successor.join()
    assert path.read_text() == f"{os.getpid()}\n"
    monkeypatch.undo()
    new.remove()
    assert not path.exists()
