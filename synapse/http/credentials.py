"""How this server proves to be itself at authorization servers, as their client."""

from __future__ import annotations

import base64
from typing import Final
from urllib.parse import quote

FORM: Final = ("Content-Type", "application/x-www-form-urlencoded")


def basic(client_id: str, secret: str) -> str:
    """RFC 6749, 2.3.1: both are encoded like a form's fields first."""
    pair = f"{quote(client_id, safe='')}:{quote(secret, safe='')}"
    return "Basic " + base64.b64encode(pair.encode()).decode()
