"""The PostgreSQL server of a test run: one for each worker, started when a test first asks for it.

Fixtures (tests/conftest.py): ``postgres`` is the server, ``postgres_url`` an empty schema on it, dropped afterwards; libpq takes
that URL as well as we do.  A test that kills the server starts one of its own: ``with PostgresServer() as server``.  Without
binaries tests fail.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

from journal.testing.postgres_server import PostgresServer

_numbers = itertools.count(1)


@contextmanager
def fresh_schema(server: PostgresServer, **parameters: str) -> Iterator[str]:
    """The URL of an empty schema, where everything unqualified is made and found; dropped at the end.

    Twenty times as fast as a database of one's own.
    """
    name = f"s{next(_numbers)}"
    server.execute(f"CREATE SCHEMA {name}")
    try:
        yield server.url(options=f"-csearch_path={name}", **parameters)
    finally:
        server.execute(f"DROP SCHEMA {name} CASCADE")
