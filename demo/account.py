"""The ready-made user: registered on the first start through the shared-secret API, and kept in demo/data/user.json."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml


class AccountError(Exception):
    """The user could not be registered; the message says why."""


@dataclass(frozen=True)
class Account:
    """Who can log in."""

    name: str
    user_id: str
    password: str


def ready_made(data: Path, url: str) -> Account:
    """The user of this demo, made if there is none yet."""
    file = data / "user.json"
    if file.exists():
        return Account(**json.loads(file.read_text()))
    secret = yaml.safe_load((data / "homeserver.yaml").read_text())["registration_shared_secret"]
    account = register(url, secret, "demo", secrets.token_urlsafe(12))
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as out:
        json.dump(asdict(account), out)
    return account


def register(url: str, secret: str, name: str, password: str) -> Account:
    """An administrator, as https://…/_synapse/admin/v1/register makes them for whoever knows the secret."""
    endpoint = f"{url}/_synapse/admin/v1/register"
    nonce = _call(endpoint)["nonce"]
    words = [nonce, name, password, "admin"]
    mac = hmac.new(secret.encode(), b"\0".join(word.encode() for word in words), hashlib.sha1).hexdigest()
    body = {"nonce": nonce, "username": name, "password": password, "admin": True, "mac": mac}
    return Account(name, _call(endpoint, body)["user_id"], password)


def _call(url: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            found: dict[str, Any] = json.load(answer)
            return found
    except urllib.error.HTTPError as error:
        said = error.read().decode("utf-8", "replace")
        raise AccountError(f"The user could not be registered: {error.code} {said}") from None
    except (OSError, ValueError) as error:
        raise AccountError(f"The user could not be registered: {error}") from None
