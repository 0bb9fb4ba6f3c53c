"""The PostgreSQL server of a test run: one for each worker, started when a test first asks for it.

Fixtures (tests/conftest.py): ``postgres`` is the server, ``postgres_url`` a fresh, empty database on it, dropped afterwards.
A test that kills the server starts one of its own: ``with PostgresServer() as server``.  Without binaries tests fail.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from journal.testing.postgres_server import PostgresServer


@contextmanager
def fresh_database(server: PostgresServer, **parameters: str) -> Iterator[str]:
    """The URL of an empty database, dropped at the end."""
    name = server.new_database()
    try:
        yield server.url(name, **parameters)
    finally:
        server.drop_database(name)
