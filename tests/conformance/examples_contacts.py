"""Examples of the operations of e-mail addresses and phone numbers."""

from __future__ import annotations

from typing import Any

from tests.conformance.example import Example
from tests.conformance.examples_accounts import auth
from tests.conformance.outside import IDENTITY_SERVER
from tests.conformance.supplies import CLIENT_SECRET, PROVED_SECRET

_SERVER = {"id_server": IDENTITY_SERVER, "id_access_token": "swordfish"}
_ASKED: dict[str, Any] = {
    "client_secret": CLIENT_SECRET,
    "send_attempt": 1,
    "next_link": "https://app.example.org/done",
    **_SERVER,
}
_NAMED = {"medium": "email", "address": "{address}", "id_server": IDENTITY_SERVER}


def _mail(operation: str, address: str) -> Example:
    return Example(operation, body={**_ASKED, "email": address})


def _text(operation: str, number: str) -> Example:
    return Example(operation, body={**_ASKED, "country": "GB", "phone_number": number})


CONTACTS = (
    _mail("requestTokenToRegisterEmail", "{new_user}@example.org"),
    _mail("requestTokenToResetPasswordEmail", "{address}"),
    _mail("requestTokenTo3PIDEmail", "{new_user}@example.org"),
    _text("requestTokenToRegisterMSISDN", "07700900002"),
    _text("requestTokenToResetPasswordMSISDN", "+{number}"),
    _text("requestTokenTo3PIDMSISDN", "07700900002"),
    Example("post3PIDs", body={"three_pid_creds": {"sid": "{proved_sid}", "client_secret": PROVED_SECRET, **_SERVER}}),
    Example("add3PID", body={"sid": "{proved_sid}", "client_secret": PROVED_SECRET, "auth": auth("alice")}),
    Example("bind3PID", body={"sid": "sid", "client_secret": CLIENT_SECRET, **_SERVER}),
    Example("unbind3pidFromAccount", body=_NAMED),
    Example("delete3pidFromAccount", body={**_NAMED, "address": "nobody@example.org"}),
)
