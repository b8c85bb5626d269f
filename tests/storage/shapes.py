"""The shape of a database, read from PostgreSQL's catalogs, so that two databases can be compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

Rows = list[tuple[Any, ...]]

# Each row begins with the relation's name. The order of columns is not compared: a column that a migration adds comes
# last, wherever full.sql has it, and no statement of ours depends on it.
_RELATIONS = """
    SELECT relname, relkind, relpersistence, reloptions FROM pg_class
    WHERE relnamespace = current_schema()::regnamespace AND relkind NOT IN ('i', 'S', 't')
"""
_COLUMNS = """
    SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity, a.attgenerated,
        pg_get_expr(d.adbin, d.adrelid), a.attstorage, a.attcollation
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
    LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
    WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
"""
_INDEXES = "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = current_schema()"
_CONSTRAINTS = """
    SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
    WHERE connamespace = current_schema()::regnamespace
"""
_OTHERS = """
    SELECT 'function', proname, pg_get_functiondef(oid) FROM pg_proc
    WHERE pronamespace = current_schema()::regnamespace AND prokind = 'f'
    UNION ALL SELECT 'trigger', tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
    UNION ALL SELECT 'sequence', sequencename, data_type::text FROM pg_sequences WHERE schemaname = current_schema()
    UNION ALL SELECT 'extension', extname, extversion FROM pg_extension
"""


class Shape(NamedTuple):
    """What a schema consists of; sorted rows of the catalogs."""

    relations: Rows
    columns: Rows
    indexes: Rows
    constraints: Rows
    others: Rows


def read_shape(query: Callable[[str], Rows]) -> Shape:
    """The shape of the database that `query` asks."""
    return Shape(*(sorted(query(sql), key=repr) for sql in (_RELATIONS, _COLUMNS, _INDEXES, _CONSTRAINTS, _OTHERS)))


def hindrances(old: Shape, new: Shape) -> list[str]:
    """What keeps code that was written for the old shape from working on the new one.

    Columns that are gone or of another type, columns that it does not know and would have to give, constraints and
    unique indexes that it may violate.
    """
    tables = {row[0] for row in old.relations}
    columns = {row[:2]: row[2:] for row in new.columns}
    known = {row[:2] for row in old.columns}
    found = [f"{row[0]}.{row[1]} was {row[2:]}" for row in old.columns if columns.get(row[:2]) != row[2:]]
    found += [
        f"{table}.{column} must be given"
        for (table, column), (_, required, identity, generated, default, *_) in columns.items()
        if table in tables and (table, column) not in known and required and not (identity or generated or default)
    ]
    before = {tuple(row) for row in old.constraints + old.indexes}
    found += [
        f"{row[0]} has {row[2]}"
        for row in new.constraints + new.indexes
        if row[0] in tables
        and tuple(row) not in before
        and (row in new.constraints or "UNIQUE" in row[2])
        # A column that is not known may have its default, which the query above has looked at.
        and not (row[2].startswith("NOT NULL ") and (row[0], row[2].split()[-1]) not in known)
    ]
    # What ON CONFLICT of the old code relies on.
    after = {tuple(row) for row in new.constraints + new.indexes}
    found += [
        f"{row[0]} lacks {row[2]}"
        for row in old.constraints + old.indexes
        if tuple(row) not in after and (row in old.constraints or "UNIQUE" in row[2])
    ]
    return found
