"""register_new_matrix_user: an account for whoever knows the server's registration secret, the first one above all.

    register_new_matrix_user -c homeserver.yaml [-u NAME] [-p PASSWORD] [-a | --no-admin] [URL]

It asks for what is not given, and tells the running server by `/_synapse/admin/v1/register` (docs/registration.md).
"""

from __future__ import annotations

import argparse
import getpass
import hashlib
import hmac
import http.client
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any, Final

from synapse.config import Config, ConfigError, load_unchecked
from synapse.config.listeners import bracketed
from synapse.config.options import WrongValue, read_secret

_SECONDS: Final = 60.0
_PATH: Final = "/_synapse/admin/v1/register"
_ANY_ADDRESS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class NewUserError(Exception):
    """The account was not made; the message says why.

    :param errcode: what the server said, if it was the server.
    """

    def __init__(self, message: str, errcode: str = "") -> None:
        super().__init__(message)
        self.errcode = errcode


def console() -> None:
    """The console script."""
    sys.exit(main(sys.argv[1:]))


def main(arguments: Sequence[str]) -> int:
    """Carry out a command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    name = options.user
    try:
        secret, url = _secret_and_url(options)
        name = name or _ask("New user's name: ")
        password = _password(options)
        admin = options.admin
        if admin is None:
            admin = _ask("Make admin [no]: ", "no").lower() in ("y", "yes", "true")
        user_id = register(url, secret, name, password, admin=admin, user_type=options.user_type)
    except NewUserError as error:
        if options.exists_ok and error.errcode == "M_USER_IN_USE":
            print(f"The account {name} exists already; it was left as it is.")
            return 0
        print(f"register_new_matrix_user: {error}", file=sys.stderr)
        return 1
    except (ConfigError, WrongValue) as error:
        print(f"register_new_matrix_user: {error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, EOFError):
        print("\nregister_new_matrix_user: no account was made", file=sys.stderr)
        return 130
    print(f"{user_id} is registered{', as an administrator' if admin else ''}.")
    return 0


def register(
    url: str, secret: str, name: str, password: str, *, admin: bool = False, user_type: str | None = None
) -> str:
    """Make an account on the server at `url`, and return its user id. Raises `NewUserError`."""
    endpoint = url.rstrip("/") + _PATH
    nonce = str(_call(endpoint).get("nonce"))
    words = [nonce, name, password, "admin" if admin else "notadmin", *([user_type] if user_type else [])]
    try:
        mac = hmac.new(secret.encode(), b"\0".join(word.encode() for word in words), hashlib.sha1).hexdigest()
    except UnicodeEncodeError:
        raise NewUserError("Name and password have to be UTF-8 text.") from None
    body = {"nonce": nonce, "username": name, "password": password, "admin": admin, "mac": mac, "inhibit_login": True}
    return str(_call(endpoint, body | ({"user_type": user_type} if user_type else {})).get("user_id"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "register_new_matrix_user",
        description="Makes an account on a server that is running, whether or not registration is open. "
        "What is not given is asked for.",
    )
    proof = parser.add_mutually_exclusive_group()
    proof.add_argument(
        "-c",
        "--config",
        metavar="FILE",
        action="append",
        help="the server's configuration, for its secret and its address (default: homeserver.yaml)",
    )
    proof.add_argument("-k", "--shared-secret", metavar="SECRET", help="the registration_shared_secret itself")
    parser.add_argument("-u", "--user", metavar="NAME", help="the localpart of the new user's id")
    password = parser.add_mutually_exclusive_group()
    password.add_argument(
        "-p", "--password", help="the new user's password; others on this machine can see command lines"
    )
    password.add_argument("--password-file", metavar="FILE", help="a file with the password in it")
    parser.add_argument("-t", "--user_type", "--user-type", metavar="TYPE", help="support or bot")
    admin = parser.add_mutually_exclusive_group()
    admin.add_argument("-a", "--admin", action="store_true", default=None, help="make an administrator")
    admin.add_argument("--no-admin", dest="admin", action="store_false", help="make no administrator")
    parser.add_argument("--exists-ok", action="store_true", help="be content with an account that is there already")
    parser.add_argument("server_url", nargs="?", metavar="URL", help="where the server answers clients")
    return parser


def _secret_and_url(options: argparse.Namespace) -> tuple[str, str]:
    if options.shared_secret:
        return options.shared_secret, options.server_url or "http://localhost:8008"
    paths = options.config or ["homeserver.yaml"]
    config = load_unchecked(paths)
    secret = config.registration.registration_shared_secret
    if not secret:
        raise NewUserError(
            f"{paths[-1]}: `registration_shared_secret` is not set; set it to a long random text, and restart"
            " the server."
        )
    return secret, options.server_url or _url(config, paths[-1])


def _url(config: Config, file: str) -> str:
    """Where the main process answers clients on this machine."""
    for listener in config.listeners:
        if listener.type == "http" and "client" in listener.names and listener.port and not listener.tls:
            address = listener.addresses[-1]
            return f"http://{bracketed(_ANY_ADDRESS.get(address, address))}:{listener.port}"
    raise NewUserError(f"{file} has no listener without TLS for clients; say at which URL the server answers.")


def _password(options: argparse.Namespace) -> str:
    if options.password_file:
        try:
            return read_secret(options.password_file)
        except WrongValue as error:
            raise NewUserError(f"--password-file {error.problem}; {error.remedy}.") from None
    if options.password:
        return str(options.password)
    password = getpass.getpass("Password: ")
    if not password:
        raise NewUserError("The password is empty.")
    if getpass.getpass("Confirm password: ") != password:
        raise NewUserError("The passwords are not the same.")
    return password


def _ask(question: str, default: str = "") -> str:
    answer = input(question).strip() or default
    if not answer:
        raise NewUserError("The name is empty.")
    return answer


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would make a GET of a POST, and take the request who knows where."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _call(url: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    data = None if body is None else json.dumps(body).encode()
    try:
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
        with urllib.request.build_opener(_NoRedirects).open(request, timeout=_SECONDS) as answer:
            found = json.load(answer)
            if isinstance(found, dict):
                return found
            raise ValueError("not an object")
    except urllib.error.HTTPError as error:
        raise _refused(url, error) from None
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise NewUserError(f"{url} cannot be reached ({reason}); is the server running, and is that its URL?") from None
    except (ValueError, http.client.HTTPException):
        raise NewUserError(f"{url} does not answer as a Synapse server does; is that its URL?") from None


def _refused(url: str, error: urllib.error.HTTPError) -> NewUserError:
    if 300 <= error.code < 400:
        return NewUserError(f"{url} redirects to {error.headers.get('Location')}; give that server's URL.")
    try:
        said = json.load(error)
        return NewUserError(f"the server says: {said['error']}", str(said["errcode"]))
    except (ValueError, KeyError, TypeError):
        return NewUserError(f"{url} answers with the status {error.code}; is that the URL of a Synapse server?")
