"""The section of a configuration that is about the rooms that everybody is in who registers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from synapse.config.errors import ConfigError
from synapse.config.options import Doc, Section

if TYPE_CHECKING:
    from collections.abc import Callable

    from synapse.config.root import Config


class AutoJoinConfig(Section, frozen=True, kw_only=True):
    """Joining rooms at once: those that new users are in from the beginning."""

    auto_join_rooms: Annotated[
        tuple[str, ...], Doc("Aliases of the rooms that new users join.", example=["#welcome:example.org"])
    ] = ()
    auto_join_rooms_for_guests: Annotated[bool, Doc("Whether guests join them, too, where rooms let guests in.")] = True
    autocreate_auto_join_rooms: Annotated[
        bool, Doc("Whether such a room is made when somebody registers and there is none.")
    ] = True
    autocreate_auto_join_rooms_federated: Annotated[
        bool, Doc("Whether users of other servers can join rooms that are made so.")
    ] = True
    autocreate_auto_join_room_preset: Annotated[
        Literal["public_chat", "private_chat", "trusted_private_chat"],
        Doc("The preset of rooms that are made so. Private ones need `auto_join_mxid_localpart`."),
    ] = "public_chat"
    auto_join_mxid_localpart: Annotated[
        str | None,
        Doc(
            "The user who makes these rooms, and invites new users where they need an invitation; by default who "
            "registers first makes them, and nobody is invited.",
            example="system",
        ),
    ] = None

    @property
    def is_private(self) -> bool:
        """Whether rooms are made that can only be joined with an invitation."""
        return self.autocreate_auto_join_rooms and self.autocreate_auto_join_room_preset != "public_chat"


def check_auto_join(config: Config, place: Callable[[str | None], str]) -> None:
    """Raises `ConfigError` for what a process cannot start with."""
    from synapse.api.errors import MatrixError
    from synapse.api.identifiers import is_valid_localpart, parse_room_alias

    options = config.auto_joining
    for alias in options.auto_join_rooms:
        try:
            parse_room_alias(alias)
        except MatrixError:
            option, remedy = "auto_join_rooms", "write aliases such as #welcome:example.org, in quotes"
            raise ConfigError(place(option), option, f"has {alias!r}, which is no room alias", remedy) from None
    localpart, option = options.auto_join_mxid_localpart, "auto_join_mxid_localpart"
    if options.auto_join_rooms and options.is_private and localpart is None:
        problem = "is missing, and rooms of the preset autocreate_auto_join_room_preset need somebody who invites"
        raise ConfigError(place(option), option, problem, "write the name of a user of this server")
    if localpart is not None and not is_valid_localpart(localpart):
        remedy = "write the part of a user ID between @ and :, such as system"
        raise ConfigError(place(option), option, f"is {localpart!r}, which is no user's name", remedy)
