"""docs/dependencies.md gives a reason for each requirement of setup.py, and for nothing else."""

import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import setuptools

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def arguments() -> dict[str, Any]:
    """What setup.py hands to setuptools."""
    found: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setuptools, "setup", lambda **given: found.update(given))
        runpy.run_path(str(ROOT / "setup.py"))
    return found


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=!~\[; ]", requirement)[0].lower() for requirement in requirements}


def test_every_dependency_has_its_reason(arguments: dict[str, Any]) -> None:
    required = names(arguments["install_requires"]).union(*map(names, arguments["extras_require"].values()))
    page = (ROOT / "docs/dependencies.md").read_text(encoding="utf-8")
    described = {
        name for line in page.splitlines() if line.startswith("- ") for name in re.findall(r"\*\*(.+?)\*\*", line)
    }
    assert described == required


def test_sql_and_types_are_packaged(arguments: dict[str, Any]) -> None:
    package = ROOT / "synapse"
    packaged = {file for pattern in arguments["package_data"]["synapse"] for file in package.glob(pattern)}
    others = {file for file in package.rglob("*") if file.is_file() and file.suffix not in (".py", ".pyc")}
    assert others == packaged


def test_all_packages_are_found(arguments: dict[str, Any]) -> None:
    expected = {str(file.parent.relative_to(ROOT)).replace("/", ".") for file in (ROOT / "synapse").rglob("*.py")}
    assert set(arguments["packages"]) == expected
