"""What a process has loaded when it begins to serve, with everything configured that there is: nothing that only some
requests need, as twelve processes would keep it twelve times.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.app.processes import ROOT

# Each takes a megabyte or more, or a tenth of a second.
HEAVY = {
    *("jinja2", "joserfc", "authlib", "saml2", "xmlsec", "lxml", "defusedxml", "phonenumbers", "smtplib", "argon2"),
    *("bcrypt", "cryptography", "OpenSSL", "PIL", "treq", "prometheus_client"),
}
# The main process says at once that a template in the configuration cannot be read.
ALLOWED = {"homeserver": {"jinja2"}}
SCRIPT = """
import json, sys
from synapse.app import _start
_start.preload()
from synapse.config import load
config = load(json.loads(sys.argv[1]))
from twisted.internet import reactor
from synapse.app._homeserver import Homeserver
from synapse.app.applications import application_of
hs = Homeserver(config, application_of(config), reactor)
assert hs.router and list(hs.duties) is not None and list(hs.background) is not None
print(json.dumps(sorted(set(sys.modules))))
"""


@pytest.mark.parametrize("app", ["homeserver", "synchrotron", "client_reader", "event_creator", "frontend_proxy"])
def test_nothing_is_loaded_that_few_requests_need(app: str, tmp_path: Path) -> None:
    files = [_file(tmp_path / "homeserver.yaml", _options(tmp_path))]
    if app != "homeserver":
        files.append(_file(tmp_path / "worker.yaml", _worker(app)))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(files)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert HEAVY & set(json.loads(done.stdout)) <= ALLOWED.get(app, set())


def _file(path: Path, options: dict[str, Any]) -> str:
    path.write_text(yaml.safe_dump(options))
    return str(path)


def _options(directory: Path) -> dict[str, Any]:
    (directory / "policy" / "en").mkdir(parents=True)
    (directory / "policy" / "en" / "1.html").write_text("be kind")
    secret = "a secret of more than thirty-two letters"
    mapping = {"config": {"localpart_template": "{{ user.name }}"}}
    oidc = {"idp_id": "x", "idp_name": "X", "issuer": "https://idp.example", "client_id": "y", "client_secret": "z"}
    return {
        "server_name": "example.org",
        "public_baseurl": "https://example.org/",
        "signing_key_path": str(ROOT / "tests" / "rest" / "test.signing.key"),
        "media_store_path": str(directory),
        "database": {"name": "psycopg2", "args": {"dbname": "unused"}},
        "form_secret": secret,
        "enable_registration": True,
        "enable_registration_captcha": True,
        "recaptcha_public_key": "public",
        "recaptcha_private_key": secret,
        "registrations_require_3pid": ["email"],
        "registration_shared_secret": secret,
        "email": {"smtp_host": "localhost", "notif_from": "Us <us@example.org>"},
        "sms": {"url": "https://sms.example/", "secret": secret},
        "password_config": {"algorithm": "argon2"},
        "oidc_providers": [{**oidc, "user_mapping_provider": mapping}],
        "cas_config": {"enabled": True, "server_url": "https://cas.example"},
        "saml2_config": {"sp_config": {"metadata": {"remote": [{"url": "https://idp.example/metadata"}]}}},
        "jwt_config": {"enabled": True, "secret": secret, "algorithm": "HS256"},
        "user_consent": {"template_dir": str(directory / "policy"), "version": "1"},
        "server_notices": {"system_mxid_localpart": "notices"},
        "account_validity": {"enabled": True, "period": "6w", "renew_at": "1w"},
        "limit_usage_by_mau": True,
        "max_mau_value": 50,
        "mau_limit_reserved_threepids": [{"medium": "email", "address": "us@example.org"}],
    }


def _worker(app: str) -> dict[str, Any]:
    main = {"worker_main_http_uri": "http://127.0.0.1:8008"} if app == "frontend_proxy" else {}
    return {
        "worker_app": f"synapse.app.{app}",
        "worker_name": app,
        "worker_replication_host": "127.0.0.1",
        "worker_replication_port": 9092,
        "worker_replication_http_port": 9093,
        "worker_listeners": [{"type": "http", "port": 8083, "resources": [{"names": ["client"]}]}],
        **main,
    }
