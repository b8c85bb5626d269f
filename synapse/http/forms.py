"""What HTML forms send: `application/x-www-form-urlencoded`, within bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synapse.api.errors import MatrixError, invalid_param
from synapse.http.request import parse_query

if TYPE_CHECKING:
    from synapse.http.request import Request


def form_of(request: Request) -> dict[str, list[str]]:
    """Every value of every field. Raises MatrixError (M_INVALID_PARAM) for what no form of ours sends."""
    try:
        return parse_query(request.body.decode("ascii"))
    except (UnicodeDecodeError, MatrixError):
        raise invalid_param("The form cannot be read.") from None


def field_of(form: dict[str, list[str]], name: str) -> str | None:
    """The first value of a field."""
    values = form.get(name)
    return values[0] if values else None
