"""What answers for logging in by tokens and by identity providers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synapse.rest.rows.types import Row

if TYPE_CHECKING:
    from synapse.app._homeserver import Homeserver
    from synapse.rest.client.sso.browser import Browsers
    from synapse.rest.client.sso.pages import SsoPages


def _login_token(hs: Homeserver) -> object:
    from synapse.rest.client.login_token import GetLoginToken

    return GetLoginToken(hs.sso.get_token, hs.accounts.ui_auth)


def _auth_metadata(hs: Homeserver) -> object:
    from synapse.rest.client.auth_metadata import AuthMetadata

    return AuthMetadata(hs.sso.oauth_metadata)


def _sso_redirect(hs: Homeserver) -> object:
    from synapse.rest.client.sso.redirect import SsoRedirect

    return SsoRedirect(hs.sso.sign_on, _browsers(hs), _pages(hs))


def _sso_joining(hs: Homeserver) -> object:
    from synapse.rest.client.sso.joining import SsoJoining

    return SsoJoining(hs.sso.sign_on, _browsers(hs), _pages(hs))


def _sso_proof(hs: Homeserver) -> object:
    from synapse.rest.client.sso.proof import SsoProof

    sso = hs.sso
    return SsoProof(sso.sign_on, sso.sessions, sso.users, sso.proof, _browsers(hs), _pages(hs))


def _cas_ticket(hs: Homeserver) -> object:
    from synapse.rest.client.sso.cas import CasTicket

    sso = hs.sso
    return CasTicket(sso.cas, sso.sign_on, sso.sessions, sso.proof, _browsers(hs), _pages(hs))


def _saml(hs: Homeserver) -> object:
    from synapse.rest.client.sso.saml import SamlEndpoints

    sso = hs.sso
    return SamlEndpoints(sso.saml, sso.sign_on, sso.sessions, _browsers(hs), _pages(hs))


def _oidc_callback(hs: Homeserver) -> object:
    from synapse.rest.client.sso.oidc import OidcCallback

    sso = hs.sso
    return OidcCallback(sso.oidc, sso.sign_on, sso.sessions, _browsers(hs), _pages(hs))


def _oidc_logout(hs: Homeserver) -> object:
    from synapse.rest.client.sso.oidc import OidcLogout

    return OidcLogout(hs.sso.back_channel_logout)


def _browsers(hs: Homeserver) -> Browsers:
    from synapse.rest.client.sso.browser import Browsers

    return Browsers(hs.config.client_baseurl)


def _pages(hs: Homeserver) -> SsoPages:
    from synapse.rest.client.sso.pages import SsoPages

    accounts, config = hs.accounts, hs.config
    return SsoPages(accounts.templates, accounts.profile_store, config.server.server_name, config.client_baseurl)


_TERMS = ("sso_consent", "sso_consent_given")

ROWS: tuple[Row, ...] = (
    Row(("login_get_token",), _login_token),
    Row(("auth_metadata",), _auth_metadata),
    Row(("login_sso_redirect", "login_cas_redirect", "sso_pick_idp"), _sso_redirect),
    Row(("sso_account_details", "sso_account_details_chosen", "sso_check_username", *_TERMS), _sso_joining),
    Row(("sso_fallback", "sso_fallback_confirmed"), _sso_proof),
    Row(("login_cas_ticket",), _cas_ticket),
    Row(("saml2_authn_response", "saml2_metadata"), _saml),
    Row(("oidc_callback",), _oidc_callback),
    Row(("oidc_backchannel_logout",), _oidc_logout),
)
