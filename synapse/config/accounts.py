"""The sections of a configuration that are about accounts: who may make one, and how people prove to own one."""

from __future__ import annotations

from typing import Annotated

from synapse.config.options import Doc, Path, Secret, Section


class PasswordOptions(Section, frozen=True, kw_only=True):
    """Logging in by password."""

    enabled: Annotated[bool, Doc("Whether users can log in with passwords.")] = True
    pepper: Annotated[
        Secret | None,
        Doc("A secret that is mixed into every password before it is hashed. Once users exist it cannot be changed."),
    ] = None


class RegistrationConfig(Section, frozen=True, kw_only=True):
    """Accounts: who may make one, and how passwords are kept."""

    enable_registration: Annotated[bool, Doc("Whether anybody may register an account.")] = False
    enable_registration_without_verification: Annotated[
        bool,
        Doc(
            "Has to be true as well, to say that you know that such registrations prove nothing, and "
            "that bots will find them."
        ),
    ] = False
    allow_guest_access: Annotated[bool, Doc("Whether people may look around without an account.")] = False
    registration_shared_secret: Annotated[
        Secret | None,
        Doc("Who knows it may register accounts, administrators included, through /_synapse/admin/v1/register."),
    ] = None
    bcrypt_rounds: Annotated[int, Doc("How costly a password hash is; one more doubles it.")] = 12
    enable_set_displayname: Annotated[bool, Doc("Whether users can change their display names.")] = True
    enable_set_avatar_url: Annotated[bool, Doc("Whether users can change their pictures.")] = True
    password_config: Annotated[PasswordOptions, Doc("Logging in by password.", example={"enabled": True})] = (
        PasswordOptions()
    )

    @property
    def fixed_profile_fields(self) -> frozenset[str]:
        """Fields of their profiles that users cannot change."""
        settable = {"displayname": self.enable_set_displayname, "avatar_url": self.enable_set_avatar_url}
        return frozenset(field for field, can_be_set in settable.items() if not can_be_set)


class TemplatesConfig(Section, frozen=True, kw_only=True):
    """Templates: of the pages and mails that this server shows and sends (`templates:`)."""

    custom_template_directory: Annotated[
        Path | None,
        Doc(
            "A directory whose files stand in for templates of the same name; docs/templates.md lists them and what "
            "they are given.",
            example="/etc/synapse/templates",
        ),
    ] = None
