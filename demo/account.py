"""The ready-made user: registered on the first start through the shared-secret API, and kept in demo/data/user.json."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

from synapse.synctl.new_user import NewUserError, register


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
    password = secrets.token_urlsafe(12)
    try:
        user_id = register(url, secret, "demo", password, admin=True)
    except NewUserError as error:
        raise AccountError(f"The user could not be registered: {error}") from None
    account = Account("demo", user_id, password)
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as out:
        json.dump(asdict(account), out)
    return account
