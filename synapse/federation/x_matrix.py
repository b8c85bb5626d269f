"""The header `Authorization` of requests between servers: what is in it. Pure.

Server-server API, "Request Authentication"; RFC 9110, sections 5.6 and 11.4.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from synapse.api.errors import unauthorized

MAX_HEADER: Final = 8192  # characters
MAX_SIGNATURES: Final = 10
_SCHEME: Final = re.compile(r"[ \t]*x-matrix +", re.IGNORECASE)
_NOTHING: Final = re.compile(r"[ \t]*(?:,|\Z)")  # an element of a list may be empty (RFC 9110, section 5.6.1.2)
# A value that is no token must be quoted, but older servers do not quote the colon of a server name or a key id.
_PARAMETER: Final = re.compile(
    r"""
    [ \t]*
    (?P<name>[!#$%&'*+.^_`|~0-9A-Za-z-]+)
    [ \t]*=[ \t]*
    (?:
        "(?P<quoted>(?:[^"\\\x00-\x08\x0a-\x1f\x7f]|\\[^\x00-\x08\x0a-\x1f\x7f])*)"
        | (?P<token>[!#$%&'*+.^_`|~0-9A-Za-z:\[\]/=-]+)
    )
    [ \t]*
    (?:,|$)
    """,
    re.VERBOSE,
)
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)


class Credentials(NamedTuple):
    """Who has signed, for whom (None where an older server does not say), and the signatures by key id."""

    origin: str
    destination: str | None
    signatures: dict[str, str]


def parse(header: str | None) -> Credentials:
    """What a request's header says; several of them come as one, with commas between them.

    Raises MatrixError (401 M_UNAUTHORIZED).
    """
    if not header:
        raise unauthorized("The request is not signed: it needs a header 'Authorization: X-Matrix …'.")
    if len(header) > MAX_HEADER:
        raise unauthorized("The Authorization header is too long.")
    found: Credentials | None = None
    position = 0
    while found is None or position < len(header):
        values, position = _credentials(header, position)
        each = Credentials(values["origin"], values.get("destination"), {values["key"]: values["sig"]})
        if found is None:
            found = each
        elif (each.origin, each.destination) != (found.origin, found.destination):
            raise unauthorized("The Authorization headers of the request name different servers.")
        else:
            found.signatures.update(each.signatures)
    if len(found.signatures) > MAX_SIGNATURES:
        raise unauthorized(f"The request has more than {MAX_SIGNATURES} signatures.")
    return found


def _credentials(header: str, position: int) -> tuple[dict[str, str], int]:
    """The parameters of one header, and where the next begins."""
    scheme = _SCHEME.match(header, position)
    if scheme is None:
        raise unauthorized("The Authorization header is not of the scheme X-Matrix.")
    position = scheme.end()
    values: dict[str, str] = {}
    while position < len(header) and not (values and _SCHEME.match(header, position)):
        if empty := _NOTHING.match(header, position):
            position = empty.end()
            continue
        match = _PARAMETER.match(header, position)
        if match is None:
            raise unauthorized("The Authorization header is malformed.")
        name = match["name"].lower()
        if name in values:
            raise unauthorized("The Authorization header has a parameter twice.")
        quoted = match["quoted"]
        values[name] = match["token"] if quoted is None else _ESCAPED.sub(r"\1", quoted)
        position = match.end()
    if "signature" in values:  # which the specification lists; its example, and all servers, say `sig`
        values.setdefault("sig", values["signature"])
    for name in ("origin", "key", "sig"):
        if not values.get(name):
            raise unauthorized(f"The Authorization header has no '{name}'.")
    return values, position
