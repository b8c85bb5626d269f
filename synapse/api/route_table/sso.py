"""Logging in by tokens and by identity providers: what clients ask, and what browsers go through."""

from synapse.api.route_table.types import CLIENT, MIB, Auth, Endpoint

_GET = ("GET",)
_POST = ("POST",)
_C = "/_matrix/client/{version}"
_PAGES = "/_synapse/client"
_OLD = ("api/v1", *CLIENT)  # of CAS, which is older than the rest
_BEGUN = "rc_login.sso"


def _page(name: str, path: str, methods: tuple[str, ...] = _GET, ratelimit: str | None = None) -> Endpoint:
    return Endpoint(name, f"{_PAGES}/{path}", methods, auth=Auth.NONE, ratelimit=ratelimit)


ENDPOINTS = (
    Endpoint("auth_metadata", f"{_C}/auth_metadata", _GET, ("v1", "unstable/org.matrix.msc2965"), auth=Auth.NONE),
    Endpoint("login_get_token", f"{_C}/login/get_token", _POST, ("v1",)),
    Endpoint(
        "login_sso_redirect",
        f"{_C}/login/sso/redirect[/{{idp_id}}]",
        _GET,
        CLIENT,
        auth=Auth.NONE,
        ratelimit=_BEGUN,
    ),
    Endpoint("login_cas_redirect", f"{_C}/login/cas/redirect", _GET, _OLD, auth=Auth.NONE, ratelimit=_BEGUN),
    Endpoint("login_cas_ticket", f"{_C}/login/cas/ticket", _GET, _OLD, auth=Auth.NONE, ratelimit=_BEGUN),
    Endpoint("sso_fallback", f"{_C}/auth/m.login.sso/fallback/web", _GET, CLIENT, auth=Auth.NONE, ratelimit=_BEGUN),
    Endpoint("sso_fallback_confirmed", f"{_C}/auth/m.login.sso/fallback/web", _POST, CLIENT, auth=Auth.NONE),
    _page("oidc_callback", "oidc/callback", ratelimit=_BEGUN),
    _page("oidc_backchannel_logout", "oidc/backchannel_logout", _POST),
    _page("sso_pick_idp", "pick_idp"),
    _page("sso_account_details", "pick_username/account_details"),
    _page("sso_account_details_chosen", "pick_username/account_details", _POST, _BEGUN),
    _page("sso_consent", "new_user_consent"),
    _page("sso_consent_given", "new_user_consent", _POST, _BEGUN),
    _page("sso_check_username", "pick_username/check", ratelimit="rc_registration"),
    # Providers have the browser post what may be encrypted twice over.
    Endpoint(
        "saml2_authn_response",
        f"{_PAGES}/saml2/authn_response",
        _POST,
        auth=Auth.NONE,
        ratelimit=_BEGUN,
        max_body=2 * MIB,
    ),
    _page("saml2_metadata", "saml2/metadata.xml", ratelimit=_BEGUN),
)
