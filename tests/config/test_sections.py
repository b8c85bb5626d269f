"""Every option is there for somebody."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import synapse
from synapse.api.routes import RESOURCES
from synapse.config.listeners import Listener, ListenerResource, ResourceName
from synapse.config.options import options_of
from synapse.config.reference import inner_section
from synapse.config.root import SECTIONS

SOURCES = Path(synapse.__file__).parent
# Rate limits are looked up by the names that stand in the route table and beside the calls.
RATE_LIMITS = "ratelimiting"


def _options(section: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    for option in options_of(section).values():
        yield option.name, f"{prefix}{option.name}"
        inner, _ = inner_section(option.type)
        if inner is not None and inner is not Listener:
            yield from _options(inner, f"{prefix}{option.name}.")


def test_listeners_can_name_every_resource_and_no_other() -> None:
    assert set(get_args(ResourceName)) == set(RESOURCES)


def test_no_option_is_there_that_nothing_reads() -> None:
    code = "\n".join(path.read_text() for path in SOURCES.rglob("*.py"))
    attributes = set(re.findall(r"\.([a-z_0-9]+)\b", code)) | set(re.findall(r'getattr\(\S+, "([a-z_]+)"', code))
    by_name = [section for name, section in SECTIONS.items() if name != RATE_LIMITS]
    sections = [*by_name, Listener, ListenerResource]
    unread = {full for section in sections for name, full in _options(section) if name not in attributes}
    assert unread == set()


def test_no_rate_limit_is_there_that_nothing_applies() -> None:
    code = "\n".join(path.read_text() for path in SOURCES.rglob("*.py") if path.parent.name != "config")
    limits = {full for name, full in _options(SECTIONS[RATE_LIMITS]) if name not in ("per_second", "burst_count")}
    leaves = {
        full.removesuffix(".per_second") for _, full in _options(SECTIONS[RATE_LIMITS]) if full.endswith("per_second")
    }
    assert {name for name in limits & leaves if f'"{name}"' not in code} == set()
