"""docs/configuration.md says what the code does."""

from __future__ import annotations

from pathlib import Path

from synapse.config.options import options_of
from synapse.config.reference import reference
from synapse.config.root import SECTIONS

ROOT = Path(__file__).parents[2]


def test_the_page_is_current() -> None:
    written = (ROOT / "docs" / "configuration.md").read_text()
    assert written == reference(), "run `python -m synapse.config.reference > docs/configuration.md`"


def test_every_option_says_what_it_is_for() -> None:
    for section in SECTIONS.values():
        for option in options_of(section).values():
            assert option.doc.text, option.name
