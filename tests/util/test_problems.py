"""How failures get into the log: faults of ours with a traceback, the failing of others with their sentence alone."""

from __future__ import annotations

import errno
import logging

import pytest
from twisted.internet.error import ConnectError, ConnectionRefusedError, DNSLookupError

from synapse.storage.errors import OutcomeUnknown
from synapse.util.problems import log_failure, why_not_connected

LOGGER = logging.getLogger(__name__)


def test_a_problem_is_logged_by_its_sentence(caplog: pytest.LogCaptureFixture) -> None:
    log_failure(LOGGER, OutcomeUnknown("The connection broke."), "%s could not be written", "5%")
    (record,) = caplog.records
    assert (record.levelname, record.exc_info) == ("WARNING", None)
    assert record.getMessage() == "5% could not be written: The connection broke."


def test_a_fault_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    error = ZeroDivisionError("oops")
    log_failure(LOGGER, error, "%s could not be written", "x")
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert record.exc_info is not None
    assert record.exc_info[1] is error
    assert record.getMessage() == "x could not be written"


def test_why_there_is_no_connection_is_said_in_words() -> None:
    assert why_not_connected(ConnectionRefusedError(errno.ECONNREFUSED)) == "Connection refused"
    assert why_not_connected(ConnectError(OSError("no route"))) == "no route"
    assert why_not_connected(DNSLookupError("no such name")) == "DNS lookup failed: no such name."
