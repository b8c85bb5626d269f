"""What goes wrong with the database, as sentences for the administrator."""

from __future__ import annotations

from synapse.api.errors import MatrixError, unknown
from synapse.util.problems import Problem


class DatabaseProblem(Problem):
    """The database cannot be used; the message is one sentence that says why and what to do."""


class DatabaseUnavailable(DatabaseProblem):
    """The database could not be reached, also after waiting for a while."""


class DatabaseClosed(DatabaseProblem):
    """This process is ending and uses the database no longer."""


class OutcomeUnknown(DatabaseProblem):
    """The connection broke while a transaction was being committed: it may have happened or not.

    Writes that may safely be done twice go through `Database.write_idempotent` and never see this.
    """


def refusal_of(error: DatabaseUnavailable | OutcomeUnknown) -> MatrixError:
    """503, with what a client's user may do."""
    if isinstance(error, OutcomeUnknown):
        return unknown("The server's database broke off, and this may have been done or not. Please try again.", 503)
    return unknown("The server's database is not available. Please try again.", 503)
