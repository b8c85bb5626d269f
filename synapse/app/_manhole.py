"""A Python prompt inside a running process, over SSH on loopback: for looking at what goes on when nothing else helps.

    ssh -p 9000 synapse@localhost     # the password is `manhole_password`; `hs` is the Homeserver

Who gets in can do whatever the process can; the configuration allows loopback only, and there is no default password.
The host key is drawn at each start. Needs Twisted's conch, which is loaded here alone.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

from synapse.config import ConfigError

if TYPE_CHECKING:
    from synapse.config import Config

USER: Final = "synapse"


def manhole_factory(config: Config, namespace: dict[str, Any]) -> Any:
    """What serves a manhole's connections; `namespace` are the names at the prompt. Raises `ConfigError`."""
    try:
        names = ("conch.manhole", "conch.manhole_ssh", "conch.insults.insults", "conch.ssh.keys", "cred.portal")
        manhole, manhole_ssh, insults, keys, portal = (_twisted(name) for name in names)
    except ImportError as error:
        problem = f"has a manhole, which needs Twisted's conch ({error})"
        remedy = "install twisted[conch], or remove the listener"
        option = config.listeners_option
        raise ConfigError(config.place(option), option, problem, remedy) from None
    realm = manhole_ssh.TerminalRealm()
    realm.chainedProtocolFactory = lambda: insults.ServerProtocol(manhole.ColoredManhole, namespace)
    factory = manhole_ssh.ConchFactory(portal.Portal(realm, [_password_of(config)]))
    key = keys.Key(_host_key())
    factory.publicKeys = {key.sshType(): key.public()}
    factory.privateKeys = {key.sshType(): key}
    return factory


def _twisted(name: str) -> Any:
    """A module without types of its own."""
    return importlib.import_module(f"twisted.{name}")


def _password_of(config: Config) -> Any:
    password = config.server.manhole_password
    assert password is not None, "the configuration is checked"
    return _twisted("cred.checkers").InMemoryUsernamePasswordDatabaseDontUse(**{USER: password.encode()})


def _host_key() -> Any:
    from cryptography.hazmat.primitives.asymmetric import ed25519

    return ed25519.Ed25519PrivateKey.generate()
