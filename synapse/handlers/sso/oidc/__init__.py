"""Logging in by OpenID Connect: the authorization code flow, with state, nonce and PKCE.

    provider    the way to the provider and back: what is asked of it, and in which order
    metadata    where its endpoints are, and which keys it signs with
    id_token    what an ID token must be for us to believe it (pure)
    claims      what becomes of what it says of a user (pure)

OpenID Connect Core 1.0; RFC 6749 (OAuth 2.0), 7636 (PKCE), 9207 (issuer identification).
"""
