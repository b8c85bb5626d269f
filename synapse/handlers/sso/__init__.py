"""Logging in by an identity provider: what is common to all kinds of them, and a module or package for each kind.

    types       what a provider is, whom it vouches for, and what goes wrong
    redirects   where clients may want people sent, and with what (pure)
    sessions    log-ins under way, each bound to the browser that began it
    users       which user of this server somebody is; new accounts
    sign_on     the way from a client to a provider and back

Providers: `oidc` (OpenID Connect), `cas`. The endpoints and pages are in `synapse.rest.client.sso`.
docs/architecture.md, "Single sign-on", says how a further kind is added.
"""
