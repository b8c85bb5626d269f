"""Each mistake ends with one sentence that names file, option and remedy."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from synapse.config import ConfigError, from_options, load
from synapse.config.errors import ConfigError as Error
from tests.config.conftest import Write

HTTP = {"type": "http", "port": 8008, "resources": [{"names": ["client"]}]}


def mail(**options: Any) -> dict[str, Any]:
    email = {"notif_from": "Matrix <noreply@example.org>", **options}
    return {"public_baseurl": "https://example.org", "email": email}


EVERYWHERE = {"type": "replication", "port": 9092, "bind_address": "0.0.0.0"}


def mistake(*paths: str) -> Error:
    with pytest.raises(ConfigError) as caught:
        load(paths)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.endswith(".")
    return caught.value


def _oidc(public_baseurl: str | None = "https://x/", **options: Any) -> dict[str, Any]:
    """One provider of OpenID Connect, with these options."""
    good = {"idp_id": "a", "idp_name": "A", "issuer": "https://a/", "client_id": "m", "client_secret": "s"}
    provider = {name: value for name, value in {**good, **options}.items() if value is not None}
    return {"public_baseurl": public_baseurl, "oidc_providers": [provider]}


def _saml(**metadata: Any) -> dict[str, Any]:
    return {"public_baseurl": "https://x/", "saml2_config": {"sp_config": {"metadata": metadata}}}


_KEY = "Noi6WqcDj0QmPxCNQqgezwTlBKrfqehY1u2FyWP9uYw"  # public

# what is spoiled → the option that is named, a part of the problem, a part of the remedy
MAIN: list[tuple[dict[str, Any], str, str, str]] = [
    ({"server_name": None}, "server_name", "is missing", "add it"),
    ({"server_name": "exa mple"}, "server_name", "no host name", "example.org"),
    ({"server_name": 5}, "server_name", "must be text, not 5", "quotes"),
    ({"default_room_version": "99"}, "default_room_version", "unknown", "12"),
    ({"public_baseurl": "example.org"}, "public_baseurl", "no URL", "https://"),
    ({"daemonize": "yes"}, "daemonize", "must be true or false, not 'yes'", "without quotes"),
    ({"federation_ip_range_blacklist": ["10.0.0.0/33"]}, "federation_ip_range_blacklist", "no network", "10.0.0.0/8"),
    ({"federation_custom_ca_list": ["/nonexistent"]}, "federation_custom_ca_list[0]", "cannot be read", "PEM"),
    ({"federation_custom_ca_list": ["/dev/null"]}, "federation_custom_ca_list[0]", "no certificate", "PEM"),
    ({"federation_domain_whitelist": ["exa mple"]}, "federation_domain_whitelist", "no server name", "example.com"),
    ({"federation": {"destination_retry_multiplier": 0.5}}, "federation.destination_retry_multiplier", "1", "2"),
    ({"federation": {"max_long_retries": -1}}, "federation.max_long_retries", "negative", "0"),
    ({"federation": {"client_timeout": "soon"}}, "federation.client_timeout", "a duration", "30s"),
    ({"rc_federation": {"concurrent": 0}}, "rc_federation.concurrent", "from 1 up", "such a number"),
    (
        {"old_signing_keys": {"ed25519:a": {"key": "x", "expired_ts": 1}}},
        "old_signing_keys.ed25519:a",
        "base64",
        "both",
    ),
    ({"old_signing_keys": {"rsa:a": {"key": _KEY, "expired_ts": 1}}}, "old_signing_keys.rsa:a", "ed25519:", "both"),
    ({"old_signing_keys": {"ed25519:a": {"key": _KEY}}}, "old_signing_keys.ed25519:a.expired_ts", "missing", "add it"),
    (
        {"old_signing_keys": {"ed25519:a": {"key": _KEY, "expired_ts": 1767225600}}},
        *("old_signing_keys.ed25519:a.expired_ts", "milliseconds", "times 1000"),
    ),
    ({"key_refresh_interval": 0}, "key_refresh_interval", "under a minute", "1d"),
    ({"federation": {"client_timeout": 0}}, "federation.client_timeout", "is 0", "60s"),
    (
        {"federation": {"destination_min_retry_interval": "2d"}},
        *("federation.destination_min_retry_interval", "destination_max_retry_interval", "the shorter"),
    ),
    ({"rc_federation": {"window_size": 0}}, "rc_federation.window_size", "is 0", "1s"),
    ({"trusted_key_servers": [{"server_name": "a b"}]}, "trusted_key_servers[0]", "no server name", "write one"),
    (
        {"trusted_key_servers": [{"server_name": "a", "verify_keys": {"ed25519:a": "?"}}]},
        *("trusted_key_servers[0]", "public key", "publication"),
    ),
    (
        {"trusted_key_servers": [{"server_name": "a"}], "federation_verify_certificates": False},
        *("trusted_key_servers[0]", "could be anybody", "accept_keys_insecurely"),
    ),
    ({"gc_thresholds": [1, 2]}, "gc_thresholds", "2 numbers", "three"),
    ({"gc_thresholds": 5}, "gc_thresholds", "must be a list, not 5", "dash"),
    ({"gc_thresholds": [1, "b", 3]}, "gc_thresholds[1]", "whole number, not 'b'", "digits"),
    ({"database": {"name": "sqlite3", "args": {"database": "h.db"}}}, "database.name", "'sqlite3'", "PostgreSQL"),
    ({"database": {"name": "embedded"}}, "database.data_directory", "is missing", "directory"),
    ({"database": "psycopg2"}, "database", "must be a mapping", "option: value"),
    ({"database": {"name": "psycopg2", "args": {"cp_min": "5"}}}, "database.args.cp_min", "whole number", "quotes"),
    (
        {"database": {"name": "psycopg2", "args": {"cp_min": 9, "cp_max": 2}}},
        "database.args.cp_min",
        "cp_max",
        "smaller",
    ),
    ({"signing_key_path": None}, "signing_key_path", "/example.org.signing.key, which cannot be", "--generate-keys"),
    ({"databases": {"main": {}}}, "databases", "`database` are both set", "keep one"),
    ({"database": None, "databases": {"main": {}, "state": {}}}, "databases", "with one database", "`database`"),
    ({"daemonize": 2}, "daemonize", "must be true or false, not 2", "without quotes"),
    ({"signing_key_path": "/nowhere/key"}, "signing_key_path", "No such file", "--generate-keys"),
    ({"signing_key_path": ""}, "signing_key_path", "empty text", "name a file"),
    ({"app_service_config_files": ["a.yaml"]}, "app_service_config_files", "cannot be read (No such", "readable"),
    ({"enable_registration": True}, "enable_registration", "nothing would be asked", "_without_verification: true"),
    ({"enable_registration_captcha": True}, "recaptcha_public_key", "is missing", "captcha's provider"),
    (
        {"enable_registration_captcha": True, "recaptcha_public_key": "k"},
        "recaptcha_private_key",
        "is missing",
        "captcha's provider",
    ),
    ({"recaptcha_siteverify_api": "captcha"}, "recaptcha_siteverify_api", "no URL", "https://"),
    ({"registrations_require_3pid": ["email"]}, "registrations_require_3pid", "no mail can be sent", "notif_from"),
    (
        {"registrations_require_3pid": ["msisdn"], "disable_msisdn_registration": True},
        "disable_msisdn_registration",
        "wants a phone number",
        "remove one",
    ),
    ({"registrations_require_3pid": ["msisdn"]}, "registrations_require_3pid", "no text message", "sms.url"),
    ({"auto_join_rooms": ["lobby"]}, "auto_join_rooms", "no room alias", "#welcome:example.org"),
    (
        {"auto_join_rooms": ["#a:example.org"], "autocreate_auto_join_room_preset": "private_chat"},
        "auto_join_mxid_localpart",
        "need somebody who invites",
        "name of a user",
    ),
    ({"auto_join_mxid_localpart": "@system:example.org"}, "auto_join_mxid_localpart", "no user's name", "between @"),
    ({"bcrypt_rounds": 40}, "bcrypt_rounds", "is 40", "4 to 31"),
    (
        {"session_lifetime": "1d", "nonrefreshable_access_token_lifetime": "2d"},
        "nonrefreshable_access_token_lifetime",
        "longer than `session_lifetime`",
        "shorter",
    ),
    (
        {"password_config": {"algorithm": "argon2", "argon2": {"memory_cost": "4K"}}},
        "password_config.argon2.memory_cost",
        "4096 bytes",
        "64M",
    ),
    ({"password_config": {"algorithm": "md5"}}, "password_config.algorithm", "bcrypt, argon2, not 'md5'", "one of"),
    ({"password_config": {"enabled": "reauth"}}, "password_config.enabled", "true, false, only_for_reauth", "one of"),
    ({"refreshable_access_token_lifetime": 0}, "refreshable_access_token_lifetime", "is zero", "1h"),
    ({"session_lifetime": "0s"}, "session_lifetime", "is zero", "90d"),
    ({"max_upload_size": "50 Megs"}, "max_upload_size", "must be a size, not '50 Megs'", "50M"),
    ({"turn_user_lifetime": "1 fortnight"}, "turn_user_lifetime", "must be a duration", "1h"),
    ({"turn_uris": ["turn:x"]}, "turn_uris", "log in", "turn_shared_secret"),
    ({"rc_message": {"per_second": 1}}, "rc_message.burst_count", "is missing", "add it"),
    (mail() | {"public_baseurl": None}, "public_baseurl", "links", "URL that clients use"),
    (mail(notif_from="Matrix"), "email.notif_from", "no address", "noreply@example.org"),
    (mail(notif_from="M\nBcc: <a@b>"), "email.notif_from", "line breaks", "one line"),
    (mail(notif_from="100% <a@b>"), "email.notif_from", "a % that means nothing", "%%"),
    (
        mail(subjects={"password_reset": "%(user)s"}),
        "email.subjects.password_reset",
        "a % that means nothing",
        "%(app)s",
    ),
    (mail(smtp_user="x"), "email.smtp_pass", "is missing", "both"),
    (
        mail(enable_tls=False, require_transport_security=True),
        "email.enable_tls",
        "TLS is required",
        "remove it",
    ),
    ({"sms": {"url": "sms.example.org", "secret": "x"}}, "sms.url", "no URL", "https://"),
    ({"sms": {"url": "https://x"}}, "sms.secret", "is missing", "share a secret"),
    (
        {"sms": {"url": "https://x", "secret": "x"}, "account_threepid_delegates": {"msisdn": "https://y"}},
        "sms.url",
        "both set",
        "keep one",
    ),
    (
        {"allowed_local_3pids": [{"medium": "email", "pattern": "("}]},
        "allowed_local_3pids[0].pattern",
        "no regular expression",
        "correct it",
    ),
    (
        {"rc_login": {"account": {"per_second": -1, "burst_count": 1}}},
        "rc_login.account.per_second",
        "not -1",
        "digits",
    ),
    (
        {"registration_shared_secret_path": "/nowhere/s"},
        "registration_shared_secret_path",
        "cannot be read",
        "create it",
    ),
    ({"worker_app": "synapse.app.synchotron"}, "worker_app", "no application", "synapse.app.synchrotron"),
    ({"worker_app": "synchrotron"}, "worker_app", "no application", "synapse.app.synchrotron"),
    ({"worker_app": "xyz"}, "worker_app", "no application", "synapse.app.pusher"),
    ({"worker_duties": ["push"]}, "worker_duties[0]", "must be one of", '"pusher"'),
    ({"listeners": [{"port": 1}]}, "listeners[0].type", "is missing", "add it"),
    ({"listeners": [HTTP | {"type": "htp"}]}, "listeners[0].type", "must be one of http", '"http"'),
    ({"listeners": [HTTP | {"port": "8008"}]}, "listeners[0].port", "port number, not '8008'", "65535"),
    ({"listeners": [HTTP | {"port": 70000}]}, "listeners[0].port", "not 70000", "65535"),
    ({"listeners": [HTTP | {"port": None}]}, "listeners[0]", "neither port nor path", "unix socket"),
    ({"listeners": [HTTP | {"path": "/s"}]}, "listeners[0]", "both port and path", "unix socket"),
    ({"listeners": [HTTP | {"resources": None}]}, "listeners[0].resources", "missing or empty", "names: [client]"),
    (
        {"listeners": [HTTP | {"resources": [{"names": ["clients"]}]}]},
        "listeners[0].resources[0].names[0]",
        "'clients'",
        '"client"',
    ),
    ({"listeners": [HTTP | {"tls": True}]}, "tls_certificate_path", "is missing, but listeners[0]", "tls: true"),
    ({"listeners": [EVERYWHERE]}, "listeners[0].bind_address", "without a secret", "worker_replication_secret"),
    ({"listeners": [HTTP | {"bind_addresses": []}]}, "listeners[0].bind_addresses", "is empty", "name an address"),
    (
        {"listeners": [HTTP | {"bind_addresses": ["example"]}]},
        "listeners[0].bind_addresses",
        "no IP address",
        "127.0.0.1",
    ),
    (
        {"listeners": [HTTP | {"bind_address": "::1", "bind_addresses": ["::1"]}]},
        "listeners[0].bind_address",
        "both set",
        "keep one",
    ),
    (
        {"listeners": [HTTP | {"bind_addresses": ["0.0.0.0"], "resources": [{"names": ["client", "replication"]}]}]},
        "listeners[0].bind_addresses",
        "without a secret",
        "127.0.0.1",
    ),
    (
        {"listeners": [{"type": "manhole", "port": 9, "bind_address": "0.0.0.0"}], "manhole_password": "x"},
        "listeners[0].bind_address",
        "manhole",
        "127.0.0.1",
    ),
    ({"listeners": [{"type": "manhole", "port": 9}]}, "manhole_password", "listeners[0] is a manhole", "set it"),
    (
        {"listeners": [HTTP, HTTP | {"bind_addresses": ["127.0.0.1"]}]},
        "listeners[1].port",
        "as listeners[0] is",
        "its own",
    ),
    (
        {"listeners": [{"type": "metrics", "port": 9, "resources": [{"names": ["metrics"]}]}]},
        "listeners[0].resources",
        "no meaning",
        "make the type http",
    ),
    ({"listeners": [{"type": "replication", "port": 9, "tls": True}]}, "listeners[0].tls", "no meaning", "remove it"),
    (
        {"listeners": [{"type": "http", "path": "/s", "mode": "rw", "resources": [{"names": ["client"]}]}]},
        "listeners[0].mode",
        "access mode",
        "0660",
    ),
    (
        {"cas_config": {"server_url": "cas"}, "public_baseurl": "https://x/"},
        "cas_config.server_url",
        "is no URL",
        "CAS",
    ),
    ({"cas_config": {"enabled": True, "server_url": "https://x"}}, "public_baseurl", "`cas_config`", "browsers reach"),
    ({"oauth": {"issuer": "http://x"}}, "oauth.issuer", "no issuer", "https"),
    ({"oauth": {"issuer": "https://x/", "client_id": "a"}}, "oauth.client_secret", "is missing", "both"),
    ({"oauth": {"issuer": "https://x/", "client_secret": "a"}}, "oauth.client_id", "is missing", "both"),
    ({"oauth": {"client_id": "a", "client_secret": "b"}}, "oauth.issuer", "is missing", "issuer"),
    (
        {"oauth": {"issuer": "https://x/", "introspection_endpoint": "https://x/i"}},
        *("oauth.client_id", "is missing", "set client_id"),
    ),
    (
        {"oauth": {"issuer": "https://x/", "client_id": "a", "client_secret": "b", "introspection_endpoint": "x"}},
        *("oauth.introspection_endpoint", "is no URL", "URL"),
    ),
    (_oidc(public_baseurl=None), "public_baseurl", "`oidc_providers[0]`", "browsers reach"),
    (_oidc(issuer="http://x"), "oidc_providers[0].issuer", "no https URL", "https://"),
    (_oidc(client_secret=None), "oidc_providers[0].client_secret", "is missing", "client_secret_path"),
    (_oidc(discover=False), "oidc_providers[0].authorization_endpoint", "not looked up", "discover: true"),
    (_oidc(idp_id="a b"), "oidc_providers[0].idp_id", "no identifier", "at most 250"),
    (
        _oidc(id_token_signing_alg_values_supported=["none"]),
        "oidc_providers[0].id_token_signing_alg_values_supported",
        "has 'none'",
        "RS256",
    ),
    (
        _oidc(user_mapping_provider={"config": {"localpart_template": "{{ user"}}),
        "oidc_providers[0].user_mapping_provider.config.localpart_template",
        "no template",
        "docs/sso.md",
    ),
    (
        _oidc(user_mapping_provider={"module": "my.Mapper"}),
        "oidc_providers[0].user_mapping_provider.module",
        "only mapping by templates",
        "config",
    ),
    ({"password_config": {"policy": {"minimum_length": 513}}}, "password_config.policy.minimum_length", "513", "512"),
    ({"sms": {"secret": "s"}}, "sms.url", "is missing", "where messages are handed in"),
    ({"trusted_third_party_id_servers": ["https://x"]}, "trusted_third_party_id_servers", "no host name", "https://"),
    (_oidc(idp_icon="https://x/i"), "oidc_providers[0].idp_icon", "no mxc: URI", "upload"),
    ({"cas_config": {"idp_icon": "x"}}, "cas_config.idp_icon", "no mxc: URI", "upload"),
    (
        {"login_via_existing_session": {"token_timeout": 0}},
        "login_via_existing_session.token_timeout",
        "is zero",
        "5m",
    ),
    (
        mail() | {"account_validity": {"enabled": True, "period": "7d", "renew_at": "7d"}},
        "account_validity.renew_at",
        "not shorter",
        "14d",
    ),
    (
        {"templates": {"custom_template_directory": "/no/such"}},
        "templates.custom_template_directory",
        "/no/such, which is no directory",
        "make it",
    ),
    (_saml(local=["/no/such.xml"]), "saml2_config.sp_config.metadata.local", "/no/such.xml", "as the provider gives"),
    (_saml(inline=["<x"]), "saml2_config.sp_config.metadata.inline", "no XML", "as the provider gives"),
]


@pytest.mark.parametrize(("spoiled", "option", "problem", "remedy"), MAIN, ids=[case[1] for case in MAIN])
def test_mistakes_of_the_main_process(
    write: Write, options: dict[str, Any], spoiled: dict[str, Any], option: str, problem: str, remedy: str
) -> None:
    path = write("homeserver.yaml", options | spoiled)
    error = mistake(path)
    assert (error.option, error.file.partition(",")[0]) == (option, path)
    assert problem in error.problem
    assert remedy in error.remedy


WORKER: list[tuple[dict[str, Any], str, str, str]] = [
    ({"worker_replication_host": None}, "worker_replication_host", "is missing", "worker_replication_host: 127.0.0.1"),
    ({"worker_replication_port": None}, "worker_replication_port", "is missing", "worker_replication_port: 9092"),
    *(
        (
            {"worker_app": f"synapse.app.{app}", "worker_replication_http_port": None},
            "worker_replication_http_port",
            f"is missing, and synapse.app.{app} needs it",
            "worker_replication_http_port: 9093",
        )
        for app in ("event_creator", "federation_reader")
    ),
    ({"worker_app": "synapse.app.frontend_proxy"}, "worker_main_http_uri", "is missing", "http://127.0.0.1:8008"),
    ({"worker_main_http_uri": "127.0.0.1:8008"}, "worker_main_http_uri", "no URL", "http://"),
    ({"worker_duties": ["pusher"]}, "worker_duties", "no meaning for synapse.app.synchrotron", "generic_worker"),
    (
        {"worker_listeners": [{"type": "replication", "port": 1}]},
        "worker_listeners[0]",
        "only the main process",
        "move it",
    ),
    ({"worker_replication_port": "abc"}, "worker_replication_port", "port number, not 'abc'", "65535"),
]


@pytest.mark.parametrize(("spoiled", "option", "problem", "remedy"), WORKER)
def test_mistakes_of_workers(
    write: Write,
    options: dict[str, Any],
    worker: dict[str, Any],
    spoiled: dict[str, Any],
    option: str,
    problem: str,
    remedy: str,
) -> None:
    path = write("workers/worker.yaml", worker | spoiled)
    error = mistake(write("homeserver.yaml", options), path)
    assert (error.option, error.file.partition(",")[0]) == (option, path)
    assert problem in error.problem
    assert remedy in error.remedy


@pytest.mark.parametrize(
    ("text", "place", "problem", "remedy"),
    [
        ("server_name: a\nlisteners: [\nx: 1\n", ", line", "not valid YAML", "correct the line"),
        ("server_name: 'a\n", ", line 2", "not valid YAML", "quotes"),
        ("- a\n- b\n", "", "not a mapping", "option: value"),
        ("server_name: a\npid_file: x\nserver_name: b\n", ", line 3", "set twice", "keep one"),
        ("database:\n  name: a\n  name: b\n", ", line 3", "set twice", "keep one"),
        ("? [a, b]\n: 1\n", ", line 1", "in place of an option's name", "option: value"),
    ],
)
def test_files_that_are_no_configuration(write: Write, text: str, place: str, problem: str, remedy: str) -> None:
    path = write("homeserver.yaml", text)
    error = mistake(path)
    assert error.file.startswith(path + place)
    assert problem in error.problem
    assert remedy in error.remedy


def test_files_that_cannot_be_read(tmp_path: Path, write: Write) -> None:
    missing = mistake(str(tmp_path / "none.yaml"))
    assert "does not exist" in missing.problem
    assert "--generate-config" in missing.remedy
    (tmp_path / "empty").mkdir()
    assert "without a .yaml file" in mistake(str(tmp_path / "empty")).problem
    (tmp_path / "latin.yaml").write_bytes(b"server_name: \xe4")
    assert "not UTF-8" in mistake(str(tmp_path / "latin.yaml")).problem


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_others_may_not_read(write: Write) -> None:
    path = write("homeserver.yaml", "server_name: a")
    os.chmod(path, 0)
    assert "cannot be read (Permission denied)" in mistake(path).problem


@pytest.mark.parametrize(
    ("content", "problem"),
    [("", "is empty"), ("rsa 1 AAAA", "of the form"), ("ed25519 a AAAA", "32 bytes"), ("ed25519 a §§", "not text")],
)
def test_signing_keys_that_are_none(write: Write, options: dict[str, Any], content: str, problem: str) -> None:
    key = write("bad.key", content)
    with pytest.raises(ConfigError) as caught:
        from_options(options | {"signing_key_path": key})
    assert caught.value.option == "signing_key_path"
    assert key in caught.value.problem
    assert problem in caught.value.problem


def test_a_secret_in_the_file_and_beside_it(write: Write, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        from_options(options | {"worker_replication_secret": "a", "worker_replication_secret_path": write("s", "b")})
    assert caught.value.option == "worker_replication_secret_path"
    assert "both set" in caught.value.problem


def test_a_wrong_value_of_a_secret_is_not_shown(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        from_options(options | {"registration_shared_secret": ["hunter2"]})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("extra", "warning"),
    [
        ({"start_pusher": True}, "`start_pusher` is no option of this server; did you mean `start_pushers`?"),
        ({"xyzzy": 1}, "`xyzzy` is no option of this server; it is ignored."),
        ({"listeners": [HTTP | {"tsl": True}]}, "`listeners[0].tsl` is no option of this server; did you mean `tls`?"),
        (
            {"listeners": [HTTP | {"resources": [{"names": ["client"], "compres": True}]}]},
            "`listeners[0].resources[0].compres` is no option of this server; did you mean `compress`?",
        ),
        (
            {"caches": {"globalfactor": 2}},
            "`caches.globalfactor` is no option of this server; did you mean `global_factor`?",
        ),
    ],
)
def test_unknown_options_are_named_and_the_start_goes_on(
    write: Write, options: dict[str, Any], extra: dict[str, Any], warning: str
) -> None:
    path = write("homeserver.yaml", options | extra)
    (given,) = load([path]).warnings
    assert given.startswith(f"{path}, line ")
    assert given.endswith(warning)


@pytest.mark.parametrize(
    ("app", "duty"),
    [
        ("pusher", "start_pushers"),
        ("appservice", "notify_appservices"),
        ("federation_sender", "send_federation"),
        ("user_dir", "update_user_directory"),
        ("media_repository", "enable_media_repo"),
    ],
)
def test_a_duty_that_two_processes_would_do_is_pointed_out(
    options: dict[str, Any], worker: dict[str, Any], app: str, duty: str
) -> None:
    both = options | worker | {"worker_app": f"synapse.app.{app}"}
    (warning,) = from_options(both).warnings
    assert f"set {duty}: false" in warning
    assert from_options(both | {duty: False}).warnings == ()


def test_a_worker_that_cannot_ask_the_main_process_is_pointed_out(
    options: dict[str, Any], worker: dict[str, Any]
) -> None:
    (warning,) = from_options(options | worker | {"worker_replication_http_port": None}).warnings
    assert "worker_replication_http_port" in warning


def test_metrics_that_are_offered_but_not_enabled(options: dict[str, Any]) -> None:
    listeners = {"listeners": [{"type": "metrics", "port": 9}]}
    (warning,) = from_options(options | listeners).warnings
    assert "`listeners[0]` offers metrics, but none are told as long as `enable_metrics` is false" in warning
    assert from_options(options | listeners | {"enable_metrics": True}).warnings == ()


def test_args_of_an_embedded_database_are_pointed_out(options: dict[str, Any]) -> None:
    database = options["database"] | {"args": {"host": "db", "cp_max": 5}}
    (warning,) = from_options(options | {"database": database}).warnings
    assert "embedded" in warning


@pytest.mark.parametrize(
    ("email", "sentence"),
    [
        ({"email": {"smtp_host": "mail.example.org"}}, "`email.notif_from` is missing, so no mail is sent."),
        (mail(smtp_host="m.org", smtp_user="x", smtp_pass="y", enable_tls=False), "in the clear."),
    ],
)
def test_odd_ways_to_send_mail_are_pointed_out(options: dict[str, Any], email: dict[str, Any], sentence: str) -> None:
    assert [warning for warning in from_options(options | email).warnings if sentence in warning]


def test_refresh_tokens_that_expire_too_early_are_odd(options: dict[str, Any]) -> None:
    lifetimes = {"refreshable_access_token_lifetime": "1h", "refresh_token_lifetime": "30m"}
    (warning,) = from_options(options | lifetimes).warnings
    assert "`refresh_token_lifetime` is shorter than `refreshable_access_token_lifetime`" in warning
    assert from_options(options | lifetimes | {"refresh_token_lifetime": "1h"}).warnings == ()
    assert from_options(options | {"session_lifetime": "1m"}).warnings == (), "what nobody set is cut"


def test_files_of_administrators_are_read_at_the_start(
    write: Write, tmp_path: Path, options: dict[str, Any], worker: dict[str, Any]
) -> None:
    """Templates that stand in for ours, and the policy, in every language; by the main process."""
    (tmp_path / "templates").mkdir()
    (tmp_path / "policy/en").mkdir(parents=True)
    (tmp_path / "policy/de").mkdir()
    mails = options | {"templates": {"custom_template_directory": str(tmp_path / "templates")}}
    asking = {"user_consent": {"template_dir": str(tmp_path / "policy"), "version": "1"}, "form_secret": "s"}
    good, bad = "{{ code }}\n", "{{ code }}\n{{ code"
    write("templates/sms_code.txt", good)
    write("policy/en/1.html", good)
    write("policy/de/1.html", bad)
    from_options(mails)
    with pytest.raises(ConfigError, match=r"policy/de/1.html, line 2, which is no template"):
        from_options(options | asking)
    write("templates/sms_code.txt", bad)
    with pytest.raises(ConfigError, match=r"sms_code.txt, line 2, which is no template") as caught:
        from_options(mails)
    assert caught.value.option == "templates.custom_template_directory"
    from_options(mails | worker)
    (tmp_path / "templates/sms_code.txt").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match=r"sms_code.txt, which cannot be read"):
        from_options(mails)


def test_what_all_processes_have_to_agree_on_is_not_for_the_file_of_one(
    write: Write, options: dict[str, Any], worker: dict[str, Any]
) -> None:
    main = write("homeserver.yaml", options | {"start_pushers": False, "password_config": {"pepper": "a"}})
    own = {"caches": {"global_factor": 2}, "start_pushers": True}
    wrong = {"password_config": {"pepper": "b"}, "signing_key_path": options["signing_key_path"], "form_secret": "s"}
    assert load([main, write("worker.yaml", worker | own)]).warnings == ()
    path = write("worker.yaml", worker | own | wrong)
    warnings = load([main, path]).warnings
    assert {warning.split("`")[1] for warning in warnings} == {"password_config", "signing_key_path", "form_secret"}
    assert warnings[0].startswith(f"{path}, line ")
    assert warnings[0].endswith(f"; set it in {main}.")
    assert load([write("all.yaml", options | worker | own | wrong)]).warnings == ()
