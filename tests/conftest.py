"""How Hypothesis runs here.

Bounded: explaining a failure may take longer than a test may, and then nothing is said of it.  In CI the examples are the
same each time, so that a change is judged and not chance; every other run looks for new ones.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import Phase, settings

from journal.testing.postgres_server import PostgresServer, memory_folder
from tests.postgres import fresh_schema

PHASES = (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink)

# Bundles are kept in the working folder unless told otherwise; the tests of evidence say where.
os.environ.setdefault("RECOVERY_EVIDENCE", "off")

settings.register_profile("here", phases=PHASES, deadline=None, print_blob=True)
settings.register_profile("ci", settings.get_profile("here"), derandomize=True, database=None)
settings.load_profile("ci" if os.environ.get("CI") else "here")


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A running PostgreSQL server: one for each worker, shared by its tests."""
    with PostgresServer(parent=memory_folder()) as server:
        yield server


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> Iterator[str]:
    """The URL of an empty schema of this test's own."""
    with fresh_schema(postgres) as url:
        yield url
