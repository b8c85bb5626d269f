"""What lies in contrib speaks of metrics, commands and files that exist."""

import re
from pathlib import Path

import pytest
import yaml

from synapse.metrics import table

CONTRIB = Path(__file__).parents[2] / "contrib"
UNITS = sorted((CONTRIB / "systemd").glob("*.service"))


def test_alerts_use_metrics_that_exist() -> None:
    rules = yaml.safe_load((CONTRIB / "prometheus/synapse.rules.yml").read_text())
    known = {metric.name for metric in table.ALL}
    used = {
        re.sub(r"_(bucket|sum|count)$", "", name)
        for group in rules["groups"]
        for rule in group["rules"]
        for name in re.findall(r"synapse_\w+", rule["expr"])
    }
    assert used <= known


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_units_call_synctl_as_it_is(unit: Path) -> None:
    from synapse.synctl.cli import _parser

    command = re.search(r"^ExecStart=\S+/synctl (.*)$", unit.read_text(), re.MULTILINE)
    assert command is not None
    options = _parser().parse_intermixed_args(command[1].split())
    assert (options.action, options.no_daemonize) == ("start", True)


PAGES = [*(CONTRIB.parent / "docs").glob("*.md"), CONTRIB.parent / "README.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target
