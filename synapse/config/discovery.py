"""The section of a configuration about what others are told before they talk to this server: its well-known files."""

from __future__ import annotations

from typing import Annotated, Any

from synapse.config.options import Doc, Section


class SupportContact(Section, frozen=True, kw_only=True):
    """Somebody who can be asked about this server."""

    matrix_id: Annotated[str | None, Doc("Their user id, best one on another server.")] = None
    email_address: Annotated[str | None, Doc("Their e-mail address.")] = None
    role: Annotated[str, Doc("`m.role.admin`, `m.role.security`, or a name of your own like `org.example.role`.")] = (
        "m.role.admin"
    )


class DiscoveryConfig(Section, frozen=True, kw_only=True):
    """Discovery: the files below /.well-known/matrix, as far as this server is asked for them."""

    default_identity_server: Annotated[
        str | None,
        Doc("The identity server that clients are told to use.", example="https://matrix.org"),
    ] = None
    extra_well_known_client_content: Annotated[
        dict[str, Any],
        Doc("What else /.well-known/matrix/client has.", example={"org.example.property": {"url": "https://…"}}),
    ] = {}  # noqa: RUF012  # msgspec copies it
    serve_server_wellknown: Annotated[
        bool,
        Doc(
            "Whether to answer /.well-known/matrix/server, by which other servers come to port 443 of the server "
            "name in place of 8448."
        ),
    ] = False
    support_contacts: Annotated[
        tuple[SupportContact, ...],
        Doc(
            "Whom /.well-known/matrix/support names, for people and other servers that need help.",
            example=[{"matrix_id": "@admin:example.org", "email_address": "admin@example.org"}],
        ),
    ] = ()
    support_page: Annotated[
        str | None, Doc("A page with help, likewise.", example="https://example.org/support.html")
    ] = None

    def for_clients(self, client_baseurl: str) -> dict[str, Any]:
        """What clients are told of this server, which they reach under that URL: /.well-known/matrix/client."""
        told = {**self.extra_well_known_client_content, "m.homeserver": {"base_url": client_baseurl}}
        if self.default_identity_server is not None:
            told["m.identity_server"] = {"base_url": self.default_identity_server}
        return told
