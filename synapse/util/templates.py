"""The pages and mails that people read, from templates that an administrator may replace.

The files are in `synapse/res/templates/`; docs/templates.md lists them. A file of the same name in the administrator's
directory goes before ours, and what it extends or includes is looked up the same way. In `.html` files values are
escaped; a value that a template names and nobody gave is an error, so that tests find it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from jinja2 import Environment

OURS: Final = Path(__file__).resolve().parent.parent / "res" / "templates"


class Templates:
    """Renders templates. Jinja2 is loaded with the first.

    :param custom_directories: where files stand that go before ours, the first ones before the others.
    """

    def __init__(self, *custom_directories: str | None) -> None:
        self._directories = [*(Path(one) for one in custom_directories if one is not None), OURS]
        self._environment: Environment | None = None

    def render(self, name: str, /, **values: Any) -> str:
        """The text of the template `name` with these values. Raises jinja2.TemplateError for one that is broken."""
        if self._environment is None:
            self._environment = _environment(self._directories)
        return self._environment.get_template(name).render(**values)


def _environment(directories: list[Path]) -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

    return Environment(
        loader=FileSystemLoader([str(directory) for directory in directories]),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
