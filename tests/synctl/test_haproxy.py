"""The written haproxy configuration; checked by haproxy itself where one is installed."""

import shutil
import subprocess
from pathlib import Path

import pytest

from synapse.api.routes import App
from synapse.synctl import haproxy
from tests.synctl.servers import WITH_ROUTES, instance, plan_of

MAIN = instance(App.HOMESERVER, 8008)
TWICE = [instance(app, 8100 + 10 * n + m, m) for n, app in enumerate(WITH_ROUTES) for m in (1, 2)]


def test_every_rule_and_server_is_written() -> None:
    plan = plan_of(MAIN, *TWICE)
    text = haproxy.render(plan)
    uses = [line.split()[1] for line in text.splitlines() if line.startswith("    use_backend")]
    assert uses == [rule.backend for rule in plan.rules]
    assert "{ method GET HEAD } { path_reg '^/_matrix/client/(api/v1|r0|unstable|v3)/pushrules/.*$' }" in text
    for backend in plan.backends:
        section = text.partition(f"\nbackend {backend.name}\n")[2].partition("\nbackend")[0]
        assert [line.split()[1:3] for line in section.splitlines() if line.startswith("    server")] == [
            [server.name, server.address] for server in backend.servers
        ]


def test_choosing_is_written_only_where_there_is_a_choice() -> None:
    assert "synapse_user)" in haproxy.render(plan_of(MAIN, *TWICE))
    assert "synapse_user)" not in haproxy.render(plan_of(MAIN, *TWICE[::2]))


@pytest.mark.skipif(shutil.which("haproxy") is None, reason="no haproxy is installed")
def test_haproxy_accepts_it(tmp_path: Path) -> None:
    file = tmp_path / "haproxy.cfg"
    file.write_text(haproxy.render(plan_of(MAIN, *TWICE), listen=("127.0.0.1:8999",)))
    check = subprocess.run(["haproxy", "-c", "-f", file], capture_output=True, text=True, check=False)
    assert check.returncode == 0, check.stderr
