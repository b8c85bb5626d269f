"""Templates: ours, those that an administrator puts before them, and what is documented."""

from __future__ import annotations

import re
from pathlib import Path

import jinja2
import pytest

from synapse.util.templates import OURS, Templates

NOTICE = {"nonce": "n", "title": "A title", "text": "<b>", "is_error": False}


def test_values_are_escaped() -> None:
    html = Templates(None).render("notice.html", **NOTICE)
    assert "<h1>A title</h1>" in html
    assert "&lt;b&gt;" in html


def test_a_value_that_is_missing_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError, match="text"):
        Templates(None).render("notice.html", nonce="n", title="t", is_error=True)


def test_an_administrators_file_goes_before_ours(tmp_path: Path) -> None:
    (tmp_path / "_page.html").write_text("mine: {% block body %}{% endblock %}")
    html = Templates(str(tmp_path)).render("notice.html", **NOTICE)
    assert html.startswith("mine:")
    assert "A title" in html


def test_every_template_is_documented_and_every_documented_one_exists() -> None:
    documented = set(re.findall(r"^\| `([\w./-]+)` \|", Path("docs/templates.md").read_text(), re.MULTILINE))
    assert documented == {str(path.relative_to(OURS)) for path in OURS.rglob("*.*")}
