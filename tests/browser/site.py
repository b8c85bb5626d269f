"""A server with workers behind nginx whose every page has something to show, and the services that it turns to."""

from __future__ import annotations

import json
import secrets
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.browser.services import CAPTCHA_SECRET, SMS_SECRET, Services, running_services
from tests.support.cluster import Cluster, running_cluster
from tests.support.mailbox import Mailbox, link_of, mailbox
from tests.support.providers import Provider, running

PASSWORD = "a long password"


@dataclass(frozen=True)
class Site:
    """The server, and the mails that it has sent."""

    cluster: Cluster
    mails: Mailbox
    services: Services
    oidc: Provider

    @property
    def url(self) -> str:
        """Where nginx is. (A page's links lead to `localhost`, which is where browsers have got it from.)"""
        return self.cluster.url.replace("127.0.0.1", "localhost")

    def ask(self, method: str, path: str, body: Any = None, token: str | None = None) -> tuple[int, Any]:
        """A client's request; `path` may begin after `/_matrix/client`."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        sent = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self.url}{'' if path.startswith('/_') else '/_matrix/client'}{path}", sent, headers, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def account(self, name: str) -> str:
        """Make an account by the shared secret; answers its access token."""
        self.cluster.register(name, PASSWORD)
        identifier = {"type": "m.id.user", "user": name}
        body = {"type": "m.login.password", "identifier": identifier, "password": PASSWORD}
        code, answer = self.ask("POST", "/v3/login", body)
        assert code == 200, answer
        return str(answer["access_token"])

    def logs_in(self, name: str, password: str) -> bool:
        """Whether that is the password."""
        identifier = {"type": "m.id.user", "user": name}
        body = {"type": "m.login.password", "identifier": identifier, "password": password}
        return self.ask("POST", "/v3/login", body)[0] == 200

    def registration_token(self) -> str:
        """A new token, for one registration."""
        admin = self.account(f"admin{secrets.token_hex(4)}")
        path = "/_synapse/admin/v1/registration_tokens/new"
        code, made = self.ask("POST", path, {"uses_allowed": 1}, admin)
        assert code == 200, made
        return str(made["token"])

    def link(self) -> str:
        """The link in the next mail."""
        return link_of(self.mails.next())


_POLICY = """{% extends "_page.html" %}
{% block title %}Policy{% endblock %}
{% block body %}
<h1>Policy</h1>
<p>Be kind.</p>
{% if not public_version and not has_consented %}
<form method="post" action="consent">
<input type="hidden" name="v" value="{{ version }}">
<input type="hidden" name="u" value="{{ user }}">
<input type="hidden" name="h" value="{{ userhmac }}">
<button type="submit">I agree</button>
</form>
{% endif %}
{% endblock %}
"""


def _options(policies: Path, mails: Mailbox, services: Services, oidc: Provider) -> dict[str, Any]:
    return {
        "ip_range_whitelist": ["127.0.0.1/32"],  # where the services are
        "form_secret": "a secret",
        "user_consent": {
            "template_dir": str(policies),
            "version": "1.0",
            "block_events_error": "Agree: %(consent_uri)s",
            "require_at_registration": True,
        },
        "account_validity": {"enabled": True, "period": "365d"},  # mails about it are sent at their users' wish
        "email": {"smtp_host": "127.0.0.1", "smtp_port": mails.port, "notif_from": "Matrix <noreply@test>"},
        "sms": {"url": f"{services.url}/sms", "secret": SMS_SECRET},
        "enable_registration": True,
        "registration_requires_token": True,
        "registrations_require_3pid": ["email", "msisdn"],
        "enable_registration_captcha": True,
        "recaptcha_public_key": "a site key",
        "recaptcha_private_key": CAPTCHA_SECRET,
        "recaptcha_siteverify_api": f"{services.url}/recaptcha/api/siteverify",
        "cas_config": {"enabled": True, "server_url": f"{services.url}/cas", "idp_name": "The university"},
        "oidc_providers": [
            {
                "idp_id": "city",
                "idp_name": "The city",
                "issuer": oidc.url,
                "client_id": "matrix",
                "client_secret": "the:client/secret of thirty-two letters",
                "skip_verification": True,
                "scopes": ["openid", "profile"],
                "user_mapping_provider": {"config": {"display_name_template": "{{ user.name }}"}},
            }
        ],
    }


@contextmanager
def running_site() -> Iterator[Site]:
    """The server, with everything that it needs, until it is no longer needed."""
    with (
        mailbox() as mails,
        running_services() as services,
        running("oidc_server") as oidc,
        TemporaryDirectory(prefix="synapse-policy-") as policies,
    ):
        (Path(policies) / "en").mkdir()
        (Path(policies) / "en/1.0.html").write_text(_POLICY)
        with running_cluster(options=_options(Path(policies), mails, services, oidc)) as cluster:
            yield Site(cluster, mails, services, oidc)
