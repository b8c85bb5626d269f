"""Listeners: where a process can be reached, and what is served there."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec.structs import replace

from synapse.config.options import Doc, Mode, Path, Port, Section

ResourceName = Literal[
    "client", "consent", "federation", "media", "keys", "openid", "replication", "metrics", "health", "static"
]
ListenerType = Literal["http", "replication", "metrics", "manhole"]

_LOOPBACK: Final = ("127.0.0.1",)
_EVERYWHERE: Final = ("::", "0.0.0.0")


class ListenerResource(Section, frozen=True, kw_only=True):
    """What an http listener serves."""

    names: Annotated[
        tuple[ResourceName, ...],
        Doc(
            "Any of `client`, `consent` (the policy's pages; comes along with `client`), `federation`, `media`, "
            "`keys` (this server's keys for other servers), "
            "`openid` (whose OpenID token it is; comes along with `federation`), "
            "`replication` (what workers ask "
            "of the main process), `metrics`, `health` (always there) and `static`."
        ),
    ]
    compress: Annotated[bool, Doc("Whether answers are compressed for clients that accept it.")] = False


class Listener(Section, frozen=True, kw_only=True):
    """Listeners: each a port or a unix socket, and what is served there (`listeners:`, `worker_listeners:`)."""

    type: Annotated[
        ListenerType,
        Doc(
            "`http`, `replication` (the TCP stream that workers follow), `metrics` (Prometheus) or "
            "`manhole` (a Python prompt over SSH, on loopback only)."
        ),
    ]
    port: Annotated[Port | None, Doc("The TCP port.")] = None
    path: Annotated[Path | None, Doc("A unix socket in place of a port.")] = None
    mode: Annotated[Mode, Doc("Access mode of the unix socket.")] = 0o666
    bind_address: Annotated[str | None, Doc("The one address to listen on.")] = None
    bind_addresses: Annotated[
        tuple[str, ...] | None,
        Doc(
            "The addresses to listen on: by default all for http, and loopback alone for whatever is "
            "not meant for the public (replication, metrics, manhole)."
        ),
    ] = None
    tls: Annotated[bool, Doc("Whether to speak TLS, with the certificate of `tls_certificate_path`.")] = False
    x_forwarded: Annotated[
        bool,
        Doc(
            "Whether to believe the client's address in the X-Forwarded-For header; for listeners "
            "that only a reverse proxy can reach."
        ),
    ] = False
    resources: Annotated[tuple[ListenerResource, ...], Doc("What an http listener serves.")] = ()

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses to bind; of no meaning for a unix socket."""
        if self.bind_addresses is not None:
            return self.bind_addresses
        if self.bind_address is not None:
            return (self.bind_address,) if self.bind_address else _EVERYWHERE
        return _EVERYWHERE if self.type == "http" and not self.is_private else _LOOPBACK

    @property
    def names(self) -> frozenset[str]:
        """The resources that it serves; those of a metrics listener included."""
        if self.type == "metrics":
            return frozenset({"metrics"})
        return frozenset(name for resource in self.resources for name in resource.names)

    def without(self, name: str) -> Listener:
        """The same, but for one resource; what is left of it may be `health` alone."""
        kept = tuple(replace(resource, names=tuple({*resource.names} - {name})) for resource in self.resources)
        if self.type == name:
            kept = (ListenerResource(names=("health",)),)
        return (
            replace(self, type="http", resources=tuple(one for one in kept if one.names))
            if name in self.names
            else self
        )

    @property
    def compressed(self) -> frozenset[str]:
        """The resources whose answers may be compressed."""
        return frozenset(name for resource in self.resources if resource.compress for name in resource.names)

    @property
    def is_private(self) -> bool:
        """Whether it serves what no stranger may reach."""
        return self.type in ("replication", "manhole") or bool(self.names & {"replication", "metrics"})

    def __str__(self) -> str:
        """How log lines and messages call it: `http on 127.0.0.1:8008`."""
        if self.path is not None:
            return f"{self.type} on {self.path}"
        return f"{self.type} on {', '.join(f'{bracketed(address)}:{self.port}' for address in self.addresses)}"


def bracketed(address: str) -> str:
    """An address as it stands before a port."""
    return f"[{address}]" if ":" in address else address


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach what is bound to `address`."""
    return address == "localhost" or address == "::1" or address.startswith("127.")
