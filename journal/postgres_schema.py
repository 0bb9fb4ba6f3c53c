"""The schema in a PostgreSQL database: stores/sql/postgresql/*.sql, applied in order, each in a transaction of its own.

``engine_schema`` holds one row: the number of the last script applied.  Whoever migrates locks that row, so that two at a time
do it once.  Nothing but ``migrate`` changes a schema.
"""

from __future__ import annotations

from importlib import resources
from typing import Final

import psycopg
from psycopg import sql

from journal.errors import NewerSchema, StoreUnavailable, UsageError
from journal.files import kill_point
from journal.postgres_connection import RETRIED, Db, Link, PostgresPlace, parse, setting

TABLE_SQL: Final = """\
-- One row: the number of the last script applied.
CREATE TABLE IF NOT EXISTS engine_schema (
    one                 integer PRIMARY KEY CHECK (one = 1),
    version             integer NOT NULL
);
INSERT INTO engine_schema VALUES (1, 0) ON CONFLICT (one) DO NOTHING;
"""
# Two who create one thing at the same time: the catalogue's own unique index, or the thing itself.
_RACES: Final = frozenset({*RETRIED, "23505", "42P07", "42P06"})


def migrations() -> list[str]:
    """The scripts of the schema, in order; the first makes version 1."""
    folder = resources.files("journal") / "stores" / "sql" / "postgresql"
    scripts = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    return [script.read_text(encoding="utf-8") for script in scripts]


def schema_sql(url: str) -> str:
    """The SQL that makes the schema, all versions in order, for who applies it by hand."""
    schema = parse(url).schema
    lines = []
    if schema:
        name = '"' + schema.replace('"', '""') + '"'
        lines.append(f"CREATE SCHEMA IF NOT EXISTS {name};\nSET search_path TO {name};\n")
    lines.append(TABLE_SQL)
    for version, script in enumerate(migrations(), 1):
        lines.append(f"BEGIN;\n{script}UPDATE engine_schema SET version = {version};\nCOMMIT;\n")
    return "\n".join(lines)


def schema_version(db: Db, place: PostgresPlace) -> int:
    """The version found; 0 where there is nothing.  NewerSchema."""
    if db.execute("SELECT to_regclass('engine_schema')").fetchone() == (None,):
        return 0
    row = db.execute("SELECT version FROM engine_schema").fetchone()
    version = 0 if row is None else int(row[0])
    if version > len(migrations()):
        raise NewerSchema(
            f"{place.location} was laid out by a newer release",
            expected=f"at most version {len(migrations())}",
            found=f"version {version}",
            hint="upgrade engine-recovery: pip install --upgrade engine-recovery",
        )
    return version


def require_schema(db: Db, place: PostgresPlace) -> None:
    """StoreUnavailable, with what to type, unless the schema is this release's."""
    found, wanted = schema_version(db, place), len(migrations())
    if found == wanted:
        return
    raise StoreUnavailable(
        f"{place.location} has the schema of an older release" if found else f"{place.location} has no tables yet",
        expected=f"version {wanted}",
        found=f"version {found}" if found else "nothing",
        hint=f"run: recovery migrate --journal '{place.location}'",
    )


def schema_state(url: str) -> tuple[int, int]:
    """The version found in a database and the one wanted."""
    place = parse(url)
    link = Link(place)
    try:
        link.open()
        return link.run(lambda db: schema_version(db, place)), len(migrations())
    finally:
        link.close()


def migrate(url: str) -> tuple[int, int]:
    """Bring a database's schema up to date; the versions before and after."""
    place = parse(url)
    link = Link(place)
    try:
        link.open()
        link.run(lambda db: _prepare(db, place))
        before = link.run(lambda db: schema_version(db, place))
        # Each step looks anew how far the schema has come, so one that was cut off is simply done again.
        while link.run(_one_step):
            kill_point("migrate.after")
        return before, len(migrations())
    finally:
        link.close()


def _prepare(db: Db, place: PostgresPlace) -> None:
    encoding = setting(db, "server_encoding")
    if encoding not in (None, "UTF8"):
        raise UsageError(
            f"{place.location} is encoded in {encoding}; a journal takes UTF8",
            hint="createdb --encoding=UTF8 --template=template0",
        )
    for attempt in range(5):
        try:
            if place.schema:
                db.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(place.schema)))
            db.execute(TABLE_SQL.encode())
            return
        except psycopg.Error as error:
            if error.sqlstate not in _RACES or attempt == 4:
                raise


def _one_step(db: Db) -> bool:
    """Apply the next script; False where there is none."""
    with db.transaction():
        row = db.execute("SELECT version FROM engine_schema WHERE one = 1 FOR UPDATE").fetchone()
        version = 0 if row is None else int(row[0])
        scripts = migrations()
        if version >= len(scripts):
            return False
        kill_point("migrate.before")
        db.execute(scripts[version].encode())
        db.execute("UPDATE engine_schema SET version = %s WHERE one = 1", (version + 1,))
    return True
