"""What answers for what accounts may do, and for what this server tells its users."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synapse.rest.rows.types import Row

if TYPE_CHECKING:
    from synapse.app._homeserver import Homeserver


def _moderation(hs: Homeserver) -> object:
    from synapse.rest.admin.moderation import ModerationEndpoints

    return ModerationEndpoints(hs.conduct.moderation)


def _whois(hs: Homeserver) -> object:
    from synapse.rest.admin.moderation import WhoisEndpoints

    return WhoisEndpoints(hs.conduct.whois)


def _consent(hs: Homeserver) -> object:
    from synapse.rest.client.consent import ConsentPages, NoConsent

    consent, policies = hs.conduct.consent, hs.conduct.policies
    if consent is None or policies is None:
        return NoConsent()
    return ConsentPages(consent, policies, hs.accounts.templates)


def _server_notices(hs: Homeserver) -> object:
    from synapse.rest.admin.server_notices import AdminServerNotices

    return AdminServerNotices(hs.conduct.server_notices, hs.config.server.server_name)


def _validity(hs: Homeserver) -> object:
    from synapse.rest.client.account_validity import ValidityEndpoints

    return ValidityEndpoints(hs.conduct.validity, hs.accounts.templates, hs.config.server.server_name)


ROWS: tuple[Row, ...] = (
    Row(("suspend_get", "suspend_set", "admin_suspend", "lock_get", "lock_set"), _moderation),
    Row(("whois", "admin_whois"), _whois),
    Row(("consent_page", "consent_given"), _consent),
    Row(("account_validity_renew", "account_validity_send_mail", "admin_account_validity"), _validity),
    Row(("admin_send_server_notice", "admin_send_server_notice_once"), _server_notices),
)
