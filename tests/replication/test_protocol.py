"""The line protocol: every command there and back, both sides' conversations, and each mistake by its name."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse.replication import protocol
from synapse.replication.protocol import (
    COMMANDS,
    Auth,
    Identity,
    LineReader,
    MainSide,
    Name,
    Ping,
    Position,
    ProtocolError,
    Rdata,
    Replicate,
    Server,
    State,
    WorkerSide,
    parse,
)

words = st.text(st.characters(exclude_categories=("Cc", "Cs", "Z")), min_size=1, max_size=20)
lines = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1, max_size=50).map(
    lambda text: " ".join(text.split()) or "x"
)
numbers = st.integers(0, 10**18)


def commands() -> st.SearchStrategy[protocol.Command]:
    def of(kind: type[protocol.Command]) -> st.SearchStrategy[Any]:
        arguments: list[st.SearchStrategy[Any]] = []
        for index, field in enumerate(fields(kind)):
            last = index == len(fields(kind)) - 1
            if field.type == "int":
                arguments.append(numbers)
            elif field.type == "int | None":
                arguments.append(st.none() | numbers)
            else:
                arguments.append(lines if kind.REST and last else words)
        return st.builds(kind, *arguments)

    return st.one_of([of(kind) for kind in COMMANDS.values()])


@given(commands())
def test_every_command_survives_being_written_and_read(command: protocol.Command) -> None:
    assert parse(command.line()) == command


@given(st.lists(commands(), max_size=5), st.data())
def test_lines_are_found_wherever_the_network_cuts(sent: list[protocol.Command], data: st.DataObject) -> None:
    stream = "".join(f"{command.line()}\n" for command in sent).encode()
    reader, got = LineReader(10_000), []
    while stream:
        cut = data.draw(st.integers(1, len(stream)))
        got += reader.receive(stream[:cut])
        stream = stream[cut:]
    assert [parse(line) for line in got] == sent


@given(st.text(max_size=80))
def test_nothing_but_a_protocol_error_comes_of_garbage(line: str) -> None:
    for hear in (parse, MainSide(MAIN).receive, WorkerSide(WORKER).receive):
        with suppress(ProtocolError):
            hear(line)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "HELLO",
        "PING",
        "PING x",
        "PING 1 2",
        "RDATA events 1",
        "RDATA events x []",
        "POSITION events -1",
        "NAME a  b c d",
    ],
)
def test_malformed_lines_are_refused(line: str) -> None:
    with pytest.raises(ProtocolError):
        parse(line)


def test_an_endless_line_is_refused() -> None:
    reader = LineReader(10)
    with pytest.raises(ProtocolError, match="more than 10 bytes"):
        reader.receive(b"x" * 11)
    with pytest.raises(ProtocolError, match="UTF-8"):
        LineReader(10).receive(b"\xff\n")


MAIN = Identity("example.org", "1.0", "m" * 8)
WORKER = Identity("example.org", "1.0", "w" * 8, instance="synchrotron1")


def converse(main: MainSide, worker: WorkerSide) -> None:
    """Lets both say all that they have to say to introduce themselves."""
    to_main: list[protocol.Command] = [worker.greeting()]
    to_worker: list[protocol.Command] = [main.greeting()]
    while to_main or to_worker:
        if to_worker:
            to_main += worker.receive(to_worker.pop(0).line())[1]
        if to_main:
            to_worker += main.receive(to_main.pop(0).line())[1]


def with_secret(identity: Identity, secret: str | None) -> Identity:
    return Identity(identity.server_name, identity.release, identity.nonce, secret, identity.instance)


@pytest.mark.parametrize("secret", [None, "s3cret"])
def test_both_sides_come_to_follow(secret: str | None) -> None:
    main, worker = MainSide(with_secret(MAIN, secret)), WorkerSide(with_secret(WORKER, secret))
    converse(main, worker)
    assert (main.state, worker.state) == (State.FOLLOWING, State.FOLLOWING)
    assert main.instance == "synchrotron1"
    assert main.receive("REPLICATE events") == (Replicate("events"), [])
    assert worker.receive("RDATA events batch [1, 2]") == (Rdata("events", None, "[1, 2]"), [])
    assert worker.receive("POSITION events 7") == (Position("events", 7), [])


def test_a_person_with_netcat_need_not_introduce_themselves_without_a_secret() -> None:
    assert MainSide(MAIN).receive("REPLICATE *") == (Replicate("*"), [])


@pytest.mark.parametrize(
    ("mains", "workers", "sentence"),
    [
        ("a", "b", "worker_replication_secret is not the one"),
        ("a", None, "prove with AUTH"),
        (None, "b", "has no worker_replication_secret"),
    ],
)
def test_secrets_that_differ_are_named(mains: str | None, workers: str | None, sentence: str) -> None:
    main, worker = MainSide(with_secret(MAIN, mains)), WorkerSide(with_secret(WORKER, workers))

    def converse_and_follow() -> None:
        converse(main, worker)
        main.receive("REPLICATE events")

    with pytest.raises(ProtocolError, match=sentence):
        converse_and_follow()


def test_the_worker_does_not_follow_who_cannot_prove_the_secret() -> None:
    worker = WorkerSide(with_secret(WORKER, "a"))
    assert worker.receive(MAIN_GREETING)[1]
    with pytest.raises(ProtocolError, match="does not prove"):
        worker.receive("POSITION events 1")
    with pytest.raises(ProtocolError, match="is not the one of this worker"):
        worker.receive("AUTH 00")


def test_a_proof_cannot_be_said_again_or_thrown_back() -> None:
    first, worker = MainSide(with_secret(MAIN, "a")), WorkerSide(with_secret(WORKER, "a"))
    first.receive(worker.greeting().line())
    (proof,) = worker.receive(first.greeting().line())[1]
    assert isinstance(proof, Auth)
    with pytest.raises(ProtocolError, match="is not the one of this worker"):
        worker.receive(proof.line())
    other = MainSide(Identity("example.org", "1.0", "another", "a"))
    other.receive(worker.greeting().line())
    with pytest.raises(ProtocolError, match="is not the one of the main process"):
        other.receive(proof.line())


MAIN_GREETING = MainSide(MAIN).greeting().line()


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("HTTP/1.1 400 Bad Request", "An HTTP server answers there"),
        ("SSH-2.0-OpenSSH_9.2", "No main process answers there"),
        ("SERVER 1 other.org 1.0 n", "is that of other.org"),
        ("SERVER 7-9 example.org 9.0 n", r"speaks versions 1 .* \(release 9.0\) 7-9"),
        ("ERROR Go away.", "says: Go away."),
    ],
)
def test_a_worker_names_what_is_wrong_with_who_answers(said: str, sentence: str) -> None:
    with pytest.raises(ProtocolError, match=sentence):
        WorkerSide(WORKER).receive(said)


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("GET / HTTP/1.1", "does not speak HTTP"),
        ("NAME w 1 other.org 1.0 n", "belongs to the server other.org"),
        ("NAME w 5 example.org 5.0 n", "releases that are not so far apart"),
        ("NAME w x example.org 5.0 n", "names no versions"),
        ("POSITION events 1", "is for a main process to say"),
        ("AUTH 00", "has no worker_replication_secret"),
        ("ERROR I do not like you.", "says: I do not like you."),
    ],
)
def test_the_main_process_names_what_is_wrong_with_who_calls(said: str, sentence: str) -> None:
    with pytest.raises(ProtocolError, match=sentence):
        MainSide(MAIN).receive(said)


def test_versions_are_negotiated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "NEWEST_VERSION", 3)
    main, worker = MainSide(MAIN), WorkerSide(WORKER)
    main.receive("NAME w 2-7 example.org 1.0 n")
    worker.receive("SERVER 1-2 example.org 1.0 n")
    assert (main.version, worker.version) == (3, 2)
    assert main.greeting().versions == "1-3"


def test_an_error_is_one_line() -> None:
    assert protocol.Error("two\nlines  here").line() == "ERROR two lines here"
    assert isinstance(parse("NAME a 1 b c d"), Name)
    assert isinstance(parse("SERVER 1 b c d"), Server)
    assert parse("PING 5") == Ping(5)
