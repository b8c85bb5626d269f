"""The section of a configuration about push notifications."""

from __future__ import annotations

from typing import Annotated

from synapse.config.options import Doc, Section


class PushConfig(Section, frozen=True, kw_only=True):
    """Push notifications: what the gateways of mobile clients are told."""

    include_content: Annotated[
        bool,
        Doc(
            "Whether notifications have the content of the event, where the client asks for more than the event's id; "
            "gateways, and the makers of phones behind them, can read it unless the room is encrypted."
        ),
    ] = True
    group_unread_count_by_room: Annotated[
        bool,
        Doc("Whether the count of what is unread is one of rooms; false for one of messages."),
    ] = True
