"""What answers for accounts: sessions, devices, profiles, settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synapse.api.routes import App
from synapse.rest.rows.types import Row

if TYPE_CHECKING:
    from synapse.app._homeserver import Homeserver

# -- accounts, sessions, devices --------------------------------------------------------------------------------------


def _register(hs: Homeserver) -> object:
    from synapse.rest.client.register import Register

    accounts, services = hs.accounts, hs.sessions.app_services
    flows, policy = accounts.proving.registration_flows, accounts.proving.password_policy
    return Register(
        *(accounts.registration, accounts.guest_upgrade, services, accounts.ui_auth, flows, policy),
        *(hs.ratelimits, hs.reactor),
    )


def _registration_token_validity(hs: Homeserver) -> object:
    from synapse.rest.client.register import RegistrationTokenValidity

    return RegistrationTokenValidity(hs.accounts.registration, hs.accounts.proving.registration_tokens)


def _fallback_pages(hs: Homeserver) -> object:
    from synapse.rest.client.ui_fallback import FallbackPages

    return FallbackPages(hs.accounts.proving.fallbacks, hs.accounts.templates)


def _login_page(hs: Homeserver) -> object:
    from synapse.rest.client.login_page import LoginPage

    return LoginPage(hs.accounts.templates, hs.config.server.server_name)


def _admin_registration_tokens(hs: Homeserver) -> object:
    from synapse.rest.admin.registration_tokens import AdminRegistrationTokens

    return AdminRegistrationTokens(hs.accounts.proving.registration_tokens)


def _sessions(hs: Homeserver) -> object:
    from synapse.rest.client.sessions import Sessions

    accounts = hs.accounts
    return Sessions(hs.sessions.login, hs.sessions.refresh, accounts.devices, accounts.tokens, accounts.authenticator)


def _admin_register(hs: Homeserver) -> object:
    from synapse.rest.admin.register import AdminRegister

    return AdminRegister(hs.accounts.registration, hs.accounts.shared_secret, hs.accounts.passwords)


def _devices(hs: Homeserver) -> object:
    from synapse.rest.client.devices import DeviceEndpoints

    return DeviceEndpoints(hs.accounts.devices, hs.accounts.ui_auth)


def _change_password(hs: Homeserver) -> object:
    from synapse.rest.client.password import ChangePassword

    accounts, proving = hs.accounts, hs.accounts.proving
    policy, flows = proving.password_policy, proving.reset_flows
    return ChangePassword(accounts.password_change, policy, accounts.ui_auth, flows, hs.ratelimits)


def _deactivate_account(hs: Homeserver) -> object:
    from synapse.rest.client.deactivation import DeactivateAccount

    accounts = hs.accounts
    return DeactivateAccount(accounts.deactivation, hs.sessions.password_login, accounts.ui_auth, hs.accounts.users)


def _admin_deactivate(hs: Homeserver) -> object:
    from synapse.rest.admin.deactivate import AdminDeactivate

    return AdminDeactivate(hs.accounts.deactivation)


def _capabilities(hs: Homeserver) -> object:
    from synapse.rest.client.discovery import Capabilities

    config, change = hs.config, hs.accounts.password_change
    return Capabilities(
        config.server.default_room_version,
        change.enabled,
        config.registration.fixed_profile_fields,
        config.login_via_existing_session.enabled,
        hs.accounts.contacts.can_change,
    )


def _account_services(hs: Homeserver) -> object:
    from synapse.rest.client.discovery import AccountServices

    return AccountServices(hs.accounts.turn)


# -- profiles, settings -----------------------------------------------------------------------------------------------


def _profiles(hs: Homeserver) -> object:
    from synapse.rest.client.profile import ProfileEndpoints

    return ProfileEndpoints(hs.accounts.profiles)


def _user_directory(hs: Homeserver) -> object:
    from synapse.rest.client.user_directory import UserDirectoryEndpoints

    return UserDirectoryEndpoints(hs.accounts.user_directory)


def _account_data(hs: Homeserver) -> object:
    from synapse.rest.client.account_data import AccountDataEndpoints

    return AccountDataEndpoints(hs.accounts.account_data)


def _filters(hs: Homeserver) -> object:
    from synapse.rest.client.account_data import FilterEndpoints

    return FilterEndpoints(hs.accounts.filters)


def _push_rules(hs: Homeserver) -> object:
    from synapse.rest.client.pushrules import PushRuleEndpoints

    return PushRuleEndpoints(hs.accounts.push_rules)


def _pushers(hs: Homeserver) -> object:
    from synapse.rest.client.pushers import PusherEndpoints

    return PusherEndpoints(hs.pushing.pushers)


def _presence_stub(hs: Homeserver) -> object:
    from synapse.rest.client.frontend_proxy import PresenceStub

    proxy = hs.accounts.frontend_proxy
    assert proxy is not None, "the configuration of a frontend_proxy names worker_main_http_uri"
    return PresenceStub(proxy)


# -- the rows --------------------------------------------------------------------------------------------------------

ROWS: tuple[Row, ...] = (
    Row(("register", "register_available"), _register),
    Row(("registration_token_validity",), _registration_token_validity),
    Row(("ui_fallback", "ui_fallback_submitted"), _fallback_pages),
    Row(("login_page",), _login_page),
    Row(
        (
            *("admin_registration_tokens", "admin_registration_token_new", "admin_registration_token_get"),
            *("admin_registration_token_set", "admin_registration_token_delete"),
        ),
        _admin_registration_tokens,
    ),
    Row(("login_flows", "login", "refresh", "logout", "logout_all", "whoami"), _sessions),
    Row(("admin_register_nonce", "admin_register"), _admin_register),
    Row(("devices", "device_get", "device_update", "device_delete", "delete_devices"), _devices),
    Row(("account_password", "password_policy"), _change_password),
    Row(("account_deactivate",), _deactivate_account),
    Row(("admin_deactivate",), _admin_deactivate),
    Row(("capabilities",), _capabilities),
    Row(("turn_server",), _account_services),
    Row(("profile_get", "profile_field_get", "profile_field_set", "profile_field_delete"), _profiles),
    Row(("user_directory_search",), _user_directory),
    Row(
        (
            *("account_data_get", "account_data_set", "room_account_data_get", "room_account_data_set"),
            *("account_data_delete", "room_account_data_delete"),
            *("room_tags", "room_tag_set", "room_tag_delete"),
        ),
        _account_data,
    ),
    Row(("filter_create", "filter_get"), _filters),
    Row(
        (
            *("push_rules", "push_rules_global", "push_rule_get", "push_rule_set", "push_rule_delete"),
            *("push_rule_enabled_get", "push_rule_enabled_set", "push_rule_actions_get", "push_rule_actions_set"),
        ),
        _push_rules,
    ),
    Row(("pushers", "pusher_set"), _pushers),
    Row(("presence_get", "presence_set"), _presence_stub, App.FRONTEND_PROXY),
)
