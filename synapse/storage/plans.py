"""Statements that a connection has had planned: PostgreSQL then parses and plans them once, and not each time, which
for the small questions of hot paths is most of their cost.

A plan serves for all parameters, even where the database believes that one made for these would be better: that
belief comes of not knowing how long lists will be, and costs a plan each time. So what is planned must be a question
that has one good plan, whatever it asks for.

A plan is made for what the tables hold at that time, and is made anew when their statistics change. In the first
minute of a new database there are none while the tables grow, so plans are not kept for longer than `KEPT_SECONDS`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from psycopg2.extensions import connection as Connection

KEPT_SECONDS: Final = 10.0

_PLACEHOLDER: Final = re.compile(r"%(?:\((\w+)\))?s|%%")


class Planned(NamedTuple):
    """A prepared statement: how to run it, and the names of its parameters in order (None: they are given so)."""

    execute: str
    names: tuple[str, ...] | None


class Session(Connection):
    """A connection that knows what it has prepared."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._planned: dict[str, Planned] = {}
        self._since = time.monotonic()

    def planned(self, sql: str) -> Planned:
        """The statement, prepared. The first time, that is a round trip of its own."""
        known = self._planned.get(sql)
        if known is None:
            name = f"s{len(self._planned)}"
            text, known = _numbered(sql, name)
            with self.cursor() as cursor:
                cursor.execute(f"PREPARE {name} AS {text}")
            self._planned[sql] = known
        return known

    def outdated(self) -> bool:
        """Whether all plans are to be made anew; asked once in that time, and then it is done."""
        now = time.monotonic()
        if now - self._since < KEPT_SECONDS:
            return False
        self._since = now
        return True


def keep_plans(connection: Connection) -> None:
    """Tells the database, outside a transaction, to use plans again instead of making others for each execution."""
    with connection.cursor() as cursor:
        cursor.execute("SET plan_cache_mode = force_generic_plan")


def values_of(planned: Planned, params: Sequence[Any] | Mapping[str, Any]) -> Sequence[Any]:
    """The parameters in the order of the prepared statement."""
    if isinstance(params, Mapping):
        return [params[name] for name in planned.names or ()]
    return params


def _numbered(sql: str, name: str) -> tuple[str, Planned]:
    """The statement with PostgreSQL's own placeholders, and how it is run as `name`."""
    names: list[str] = []
    count = 0

    def number(match: re.Match[str]) -> str:
        nonlocal count
        if match[0] == "%%":
            return "%"
        if match[1] is None:
            count += 1
            return f"${count}"
        if match[1] not in names:
            names.append(match[1])
        return f"${names.index(match[1]) + 1}"

    text = _PLACEHOLDER.sub(number, sql)
    total = count or len(names)
    arguments = f" ({', '.join(['%s'] * total)})" if total else ""
    return text, Planned(f"EXECUTE {name}{arguments}", tuple(names) if names else None)
