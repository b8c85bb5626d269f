"""The sections of a configuration that are about accounts: who may make one, and how people prove to own one."""

from __future__ import annotations

from typing import Annotated, Literal

from synapse.config.options import Doc, Path, Positive, Secret, Section, Size


class Argon2Options(Section, frozen=True, kw_only=True):
    """What a hash by Argon2 costs."""

    time_cost: Annotated[Positive, Doc("Passes over the memory.")] = 3
    memory_cost: Annotated[Size, Doc("The memory that each hash takes while it is made.")] = 64 << 20
    parallelism: Annotated[Positive, Doc("How many processors can work on one hash.")] = 4


class PasswordPolicyOptions(Section, frozen=True, kw_only=True):
    """What is asked of passwords that users choose."""

    enabled: Annotated[bool, Doc("Whether anything is asked.")] = False
    minimum_length: Annotated[Positive, Doc("How many characters a password has at least.")] = 1
    require_digit: Annotated[bool, Doc("Whether there must be a digit.")] = False
    require_symbol: Annotated[bool, Doc("Whether there must be a character that is neither letter nor digit.")] = False
    require_lowercase: Annotated[bool, Doc("Whether there must be a lower-case letter.")] = False
    require_uppercase: Annotated[bool, Doc("Whether there must be an upper-case letter.")] = False


class PasswordOptions(Section, frozen=True, kw_only=True):
    """Logging in by password."""

    enabled: Annotated[
        Literal[True, False, "only_for_reauth"],
        Doc(
            "Whether users can log in with passwords. `only_for_reauth`: they cannot, but prove by them that they are "
            "who is logged in."
        ),
    ] = True
    localdb_enabled: Annotated[bool, Doc("Whether the passwords are used that this server keeps.")] = True
    algorithm: Annotated[
        Literal["bcrypt", "argon2"],
        Doc(
            "How passwords are hashed. Where it is changed, or its cost, users' hashes are made anew when they log in "
            "the next time."
        ),
    ] = "bcrypt"
    argon2: Annotated[Argon2Options, Doc("What a hash by Argon2 costs; that of bcrypt: `bcrypt_rounds`.")] = (
        Argon2Options()
    )
    pepper: Annotated[
        Secret | None,
        Doc("A secret that is mixed into every password before it is hashed. Once users exist it cannot be changed."),
    ] = None
    policy: Annotated[PasswordPolicyOptions, Doc("What is asked of passwords that users choose.")] = (
        PasswordPolicyOptions()
    )

    @property
    def for_login(self) -> bool:
        """Whether users log in by password."""
        return self.enabled is True and self.localdb_enabled

    @property
    def for_proof(self) -> bool:
        """Whether users prove by their password that they are who is logged in."""
        return bool(self.enabled) and self.localdb_enabled


class RegistrationConfig(Section, frozen=True, kw_only=True):
    """Accounts: who may make one, and how passwords are kept."""

    enable_registration: Annotated[bool, Doc("Whether anybody may register an account.")] = False
    enable_registration_without_verification: Annotated[
        bool,
        Doc(
            "Has to be true as well where nothing is asked of those who register (an address, a token, a captcha), to "
            "say that you know that such registrations prove nothing, and that bots will find them."
        ),
    ] = False
    allow_guest_access: Annotated[bool, Doc("Whether people may look around without an account.")] = False
    registration_shared_secret: Annotated[
        Secret | None,
        Doc("Who knows it may register accounts, administrators included, through /_synapse/admin/v1/register."),
    ] = None
    bcrypt_rounds: Annotated[int, Doc("How costly a password hash by bcrypt is; one more doubles it.")] = 12
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
