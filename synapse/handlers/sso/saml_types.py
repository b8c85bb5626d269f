"""What goes between the SAML provider and pysaml2's side of it. Without pysaml2, which few servers have installed."""

from __future__ import annotations

from typing import NamedTuple

import msgspec


class SamlRequest(NamedTuple):
    """A request to log in: its id, the provider that it is for, and the URL that takes it there."""

    request_id: str
    idp: str
    location: str


class Expected(msgspec.Struct, frozen=True):
    """What a response must answer; for one that nobody asked for, there is none."""

    request_id: str
    idp: str


class Assertion(NamedTuple):
    """What a provider says of somebody. `expires_ts` (milliseconds): how long it might be shown again."""

    assertion_id: str
    expires_ts: int
    attributes: dict[str, list[str]]


class Unacceptable(Exception):
    """A response that proves nothing; the message is for the log, and says nothing about people."""
