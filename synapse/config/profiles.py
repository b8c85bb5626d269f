"""The section of a configuration about profiles: who may look at them, and where they are shown."""

from __future__ import annotations

from typing import Annotated

from synapse.config.options import Doc, Section


class ProfilesConfig(Section, frozen=True, kw_only=True):
    """Profiles: names, pictures and further fields of users."""

    require_auth_for_profile_requests: Annotated[
        bool, Doc("Whether profiles are shown only to those who are logged in.")
    ] = False
    limit_profile_requests_to_users_who_share_rooms: Annotated[
        bool,
        Doc(
            "Whether they are shown only to those who share a room with the user, or could meet the user in a public "
            "room; that needs a login as well."
        ),
    ] = False
    include_profile_data_on_invite: Annotated[
        bool, Doc("Whether invitations show the name and picture of who is invited, before they have joined.")
    ] = True
