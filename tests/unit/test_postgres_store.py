"""What the PostgreSQL store does that no other does: who writes, what is durable, and what becomes of a lost COMMIT."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg
import pytest

from journal.errors import (
    CorruptionError,
    JournalInUse,
    NewerSchema,
    OutcomeUnknown,
    RecoveryError,
    StoreUnavailable,
    UnknownScheme,
    UsageError,
    WriterFenced,
)
from journal.journal import Journal
from journal.postgres_connection import Db, parse, refusal
from journal.postgres_schema import migrate, migrations, schema_sql, schema_state
from journal.records import Entry
from journal.store import SqlCursor
from journal.stores import postgres_hold
from journal.stores.postgres import PostgresStore
from journal.testing.contract import STREAM, make_entries
from journal.testing.postgres_server import PostgresServer
from journal.urls import open_reader, open_writer
from recovery import Command, Receipt, Runtime, open_journal, verify
from tests.engines import Till


@pytest.fixture
def url(postgres_url: str) -> str:
    migrate(postgres_url)
    return postgres_url


@contextmanager
def writing(url: str) -> Iterator[PostgresStore]:
    """A store opened for write on a stream with one epoch."""
    with closing(PostgresStore.open_for_write(url, STREAM)) as store:
        store.create(STREAM, b"identity")
        store.append_epoch(STREAM, 1, b"epoch 1")
        yield store


@pytest.fixture
def store(url: str) -> Iterator[PostgresStore]:
    with writing(url) as store:
        yield store


def deposit(cents: int, request_id: str) -> Command:
    return Command("deposit", {"number": "ada", "cents": cents}, request_id=request_id)


def kill_session(store: PostgresStore, url: str) -> None:
    """End the store's session at the server, and wait until it is gone."""
    pid = store._link.db().info.backend_pid
    with psycopg.connect(url, autocommit=True) as db:
        db.execute("SELECT pg_terminate_backend(%s, 10000)", (pid,))


# Who writes


def test_a_takeover_replaces_a_writer_that_lives_and_says_so_to_it(url: str, store: PostgresStore) -> None:
    entries = make_entries(1, 4)
    store.append(STREAM, 1, entries[:2])
    with pytest.raises(JournalInUse, match=rf"process {os.getpid()} on .+ since \d{{4}}-") as refused:
        PostgresStore.open_for_write(url, STREAM)
    assert "--takeover" in refused.value.hint
    with closing(PostgresStore.open_for_write(url, STREAM, takeover=True)) as other:
        # From the opening on, before any epoch: what the new one reads is the end.
        for _ in range(2):
            with pytest.raises(WriterFenced, match=r"taken over by process \d+ on .+ since"):
                store.append(STREAM, 1, entries[2:3])
        assert len(store.page(STREAM, 0, 9)) == 2, "who was replaced can still read"
        other.append_epoch(STREAM, 2, b"epoch 2")
        other.append(STREAM, 2, make_entries(3, 4, epoch=2))
        store.close()
        with pytest.raises(JournalInUse):
            PostgresStore.open_for_write(url, STREAM)


def test_streams_of_one_database_have_writers_of_their_own(url: str, store: PostgresStore) -> None:
    with closing(PostgresStore.open_for_write(url, "other")) as other:
        other.create("other", b"identity of other")
        other.append_epoch("other", 1, b"")
        other.append("other", 1, make_entries(1, 2))
        store.append(STREAM, 1, make_entries(1, 1))
        with pytest.raises(JournalInUse, match="'other'"):
            store.append_epoch("other", 2, b"")
        with pytest.raises(JournalInUse, match="'main'"):
            other.append(STREAM, 1, make_entries(2, 2))


def test_a_writer_whose_session_is_gone_is_replaced_without_asking(url: str) -> None:
    first = PostgresStore.open_for_write(url, STREAM)
    first.create(STREAM, b"identity")
    kill_session(first, url)
    second = PostgresStore.open_for_write(url, STREAM)
    with pytest.raises(WriterFenced, match="taken over"):
        first.append_epoch(STREAM, 1, b"late")
    second.append_epoch(STREAM, 1, b"epoch 1")
    first.close()
    second.close()


@pytest.mark.parametrize(
    "missing", ["SELECT backend_start FROM no_such_view WHERE pid = %s", "SELECT NULL WHERE %s > 0"]
)
def test_where_sessions_cannot_be_looked_up_any_holder_counts_as_alive(
    url: str, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    first = PostgresStore.open_for_write(url, STREAM)
    first.create(STREAM, b"identity")
    kill_session(first, url)
    monkeypatch.setattr(postgres_hold, "_ACTIVE", missing)
    with pytest.raises(JournalInUse):
        PostgresStore.open_for_write(url, STREAM)
    PostgresStore.open_for_write(url, STREAM, takeover=True).close()
    PostgresStore.open_for_write(url, STREAM).close()  # who closed in order has said so
    first.close()


@pytest.mark.parametrize("count", [1, 3])
def test_an_append_that_waits_for_a_takeover_writes_nothing(url: str, store: PostgresStore, count: int) -> None:
    taking = psycopg.connect(url)
    taking.execute("UPDATE engine_streams SET claim = claim + 1 WHERE stream = %s", (STREAM,))
    outcome: list[Exception] = []

    def append() -> None:
        try:
            store.append(STREAM, 1, make_entries(1, count))
        except RecoveryError as error:
            outcome.append(error)

    thread = threading.Thread(target=append)
    thread.start()
    thread.join(0.3)
    waits = thread.is_alive()
    taking.commit()
    taking.close()
    thread.join(30)
    assert waits, "the fence is not read FOR SHARE"
    assert [type(error) for error in outcome] == [WriterFenced]
    assert store.last(STREAM) is None


@pytest.mark.parametrize("count", [1, 3])
def test_a_takeover_waits_for_an_append_on_its_way(url: str, store: PostgresStore, count: int) -> None:
    taken: list[float] = []

    def take_over() -> None:
        with psycopg.connect(url) as db:
            db.execute("UPDATE engine_streams SET claim = claim + 1 WHERE stream = %s", (STREAM,))
            taken.append(time.monotonic())

    thread = threading.Thread(target=take_over)
    left: list[float] = []

    def meanwhile(cursor: object, entries: object) -> None:
        thread.start()
        time.sleep(0.3)
        left.append(time.monotonic())

    store._hooks[STREAM] = meanwhile
    store.append(STREAM, 1, make_entries(1, count))
    thread.join(30)
    assert taken[0] >= left[0], "the takeover went by an append that was on its way"
    with pytest.raises(WriterFenced):
        store.append(STREAM, 1, make_entries(count + 1, count + 1))


def test_a_writer_that_sleeps_in_its_transaction_is_replaced_at_once_and_wakes_to_nothing(url: str) -> None:
    with Runtime.open(Till, journal=url, snapshots="memory:") as till:
        till.execute(deposit(5, "a"))
        store = till._recorder.store
        assert isinstance(store, PostgresStore)

        def asleep(cursor: object, entries: object) -> None:
            del store._hooks["main"]
            with Runtime.open(Till, journal=url, snapshots="memory:", takeover=True) as other:
                assert other.execute(deposit(1, "c")).command_id == 2

        store._hooks["main"] = asleep
        with pytest.raises(WriterFenced, match="taken over by"):
            till.execute(deposit(1, "b"))
        with pytest.raises(WriterFenced):
            till.execute(deposit(1, "b"))
        till.close(snapshot=False)
    with open_journal(url) as journal:
        assert [entry.request_id for entry in journal.read()] == [deposit(0, name).request_id for name in "ac"]


def test_a_forked_child_may_not_write(store: PostgresStore) -> None:
    pid = os.fork()
    if pid == 0:
        try:
            store.append(STREAM, 1, make_entries(1, 1))
        except WriterFenced:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    store.append(STREAM, 1, make_entries(1, 1))


# A COMMIT without an answer


def lose_commit(store: PostgresStore, url: str, *, wrote: bool) -> None:
    """Have the store's session killed at its next COMMIT, right before or right after."""
    commit: Callable[[Db], None] = store._commit
    alone: Any = store._append_alone

    def restore() -> None:
        store._commit, store._append_alone = commit, alone  # type: ignore[method-assign]

    def lost_commit(db: Db) -> None:
        restore()
        store._committing = True
        if wrote:
            commit(db)
        kill_session(store, url)
        db.execute("COMMIT")

    def lost_alone(db: Db, stream: str, epoch: int, entries: list[Entry]) -> None:
        restore()
        if wrote:
            alone(db, stream, epoch, entries)
        kill_session(store, url)
        alone(db, stream, epoch, entries)

    store._commit = lost_commit  # type: ignore[method-assign]
    store._append_alone = lost_alone  # type: ignore[method-assign, assignment]


@pytest.mark.parametrize("wrote", [True, False])
@pytest.mark.parametrize("count", [1, 3])
def test_a_lost_commit_is_unknown_until_a_new_epoch(url: str, store: PostgresStore, wrote: bool, count: int) -> None:
    entries = make_entries(1, count)
    lose_commit(store, url, wrote=wrote)
    with pytest.raises(OutcomeUnknown) as unknown:
        store.append(STREAM, 1, entries)
    assert isinstance(unknown.value.__cause__, psycopg.Error)
    with pytest.raises(OutcomeUnknown):
        store.append(STREAM, 1, entries)  # a blind retry
    store.append_epoch(STREAM, 2, b"epoch 2")
    assert store.page(STREAM, 0, 9) == (entries if wrote else [])
    more = make_entries(count + 1, count + 2, epoch=2) if wrote else make_entries(1, 2, epoch=2)
    store.append(STREAM, 2, more)


@pytest.mark.parametrize("wrote", [True, False])
@pytest.mark.parametrize("count", [1, 3])
def test_the_runtime_answers_nevertheless_and_once(url: str, wrote: bool, count: int) -> None:
    with Runtime.open(Till, journal=url, snapshots="memory:", seed=1) as till:
        till.execute(deposit(5, "first"))
        store = till._recorder.store
        assert isinstance(store, PostgresStore)
        lose_commit(store, url, wrote=wrote)
        outcomes = list(till.execute_many([deposit(1, f"r{n}") for n in range(count)]))
        assert [one.response for one in outcomes if isinstance(one, Receipt)] == [
            {"cents": 6 + n} for n in range(count)
        ]
        assert till.execute(deposit(1, "r0")).duplicate
        assert till.execute(deposit(1, "next")).command_id == count + 2
    with open_journal(url) as journal:
        assert [epoch.number for epoch in journal.epochs()] == [1, 2]
        assert journal.head().command_id == count + 2
    assert verify(Till, url).verdict == "verified"


def test_an_epoch_whose_commit_is_lost_is_recorded_once(url: str, store: PostgresStore) -> None:
    for number, wrote in ((2, True), (3, False)):
        lose_commit(store, url, wrote=wrote)
        store.append_epoch(STREAM, number, b"epoch %d" % number)
    assert store.epochs(STREAM) == [(n, b"epoch %d" % n) for n in (1, 2, 3)]
    store.append(STREAM, 3, make_entries(1, 1, epoch=3))


def test_a_connection_lost_before_commit_means_nothing_was_written_and_is_made_again(
    url: str, store: PostgresStore
) -> None:
    turns = []

    def lost_at_first(cursor: SqlCursor, entries: object) -> None:
        turns.append(1)
        if len(turns) == 1:
            kill_session(store, url)
            cursor.execute("SELECT 1")

    store._hooks[STREAM] = lost_at_first
    entries = make_entries(1, 3)
    store.append(STREAM, 1, entries)
    assert len(turns) == 2
    assert store.page(STREAM, 0, 9) == entries


def test_a_commit_with_a_warning_does_not_count(url: str, store: PostgresStore) -> None:
    with psycopg.connect(url) as db:
        db.execute(
            "CREATE FUNCTION warn() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE WARNING 'careful'; RETURN NULL; END$$"
        )
        db.execute(
            "CREATE CONSTRAINT TRIGGER warn AFTER INSERT ON engine_journal DEFERRABLE INITIALLY DEFERRED "
            "FOR EACH ROW EXECUTE FUNCTION warn()"
        )
    for count, first in ((1, 1), (2, 2)):
        with pytest.raises(OutcomeUnknown):
            store.append(STREAM, 1, make_entries(first, first + count - 1))
        store._in_doubt.clear()


def test_a_transaction_that_is_idle_for_too_long_is_ended_by_the_server(url: str) -> None:
    store = PostgresStore.open_for_write(f"{url}&pause_max_s=0.3", STREAM)
    store.create(STREAM, b"identity")
    store.append_epoch(STREAM, 1, b"epoch")
    store._hooks[STREAM] = lambda cursor, entries: time.sleep(1)
    with pytest.raises(OutcomeUnknown):
        store.append(STREAM, 1, make_entries(1, 1))
    with psycopg.connect(url) as db:
        db.execute("SELECT FROM engine_streams FOR UPDATE NOWAIT")
    store.append_epoch(STREAM, 2, b"epoch")
    assert store.last(STREAM) is None
    store.close()


# Durability


def test_a_session_turns_synchronous_commit_on_where_it_was_off(postgres: PostgresServer, url: str) -> None:
    store = PostgresStore.open_for_write(url + "%20-csynchronous_commit%3Doff", STREAM)
    assert store.durable
    assert store.settings()["synchronous_commit"] == "on"
    store.close()


# Reading


def test_pages_are_read_ahead_and_alike(url: str, store: PostgresStore) -> None:
    entries = make_entries(1, 100)
    store.append(STREAM, 1, entries)
    for reader in (store, PostgresStore.open_for_read(url)):
        found = [entry for at in range(0, 100, 7) for entry in reader.page(STREAM, at, at + 7)]
        assert found == entries
        assert reader.page(STREAM, 0, 100) == entries
        assert reader.find(STREAM, [entries[5].request_key]) == [entries[5]]
    reader.close()


def test_a_reader_beside_a_writer_sees_a_growing_prefix(url: str, store: PostgresStore) -> None:
    entries = make_entries(1, 400)

    def write() -> None:
        for at in range(0, 400, 8):
            store.append(STREAM, 1, entries[at : at + 8])

    thread = threading.Thread(target=write)
    with closing(PostgresStore.open_for_read(url)) as reader:
        thread.start()
        seen = 0
        while seen < 400:
            at, found = 0, []
            while page := reader.page(STREAM, at, at + 16):
                found += page
                at = page[-1].command_id
            assert found == entries[: len(found)]
            assert len(found) >= seen
            assert len(found) % 8 == 0, "half of a batch was seen"
            seen = len(found)
    thread.join()


@pytest.mark.parametrize("column", ["chain", "part_hashes", "checksum"])
def test_a_hash_of_another_length_is_damage_at_its_position(url: str, store: PostgresStore, column: str) -> None:
    store.append(STREAM, 1, make_entries(1, 5))
    with psycopg.connect(url) as db:
        db.execute(f"UPDATE engine_journal SET {column} = '\\x00' WHERE command_id = 3")
    with closing(PostgresStore.open_for_read(url)) as reader, pytest.raises(CorruptionError) as damage:
        list(Journal(reader, STREAM).read())
    assert damage.value.position == 3


def test_an_identity_that_is_lost_is_damage_and_no_new_journal(url: str, store: PostgresStore) -> None:
    with psycopg.connect(url) as db:
        db.execute("UPDATE engine_streams SET stream = 'mine'")
    with (
        closing(PostgresStore.open_for_read(url)) as reader,
        pytest.raises(CorruptionError, match="identity of stream"),
    ):
        reader.identity(STREAM)


def test_check_looks_up_every_request(url: str, store: PostgresStore) -> None:
    store.append(STREAM, 1, make_entries(1, 50))
    store.check()
    with psycopg.connect(url) as db:
        # What a broken index does: two rows for one request, which a whole one would refuse.
        db.execute("ALTER TABLE engine_journal DROP CONSTRAINT engine_journal_by_request")
        db.execute("CREATE INDEX ON engine_journal (stream, request_key)")
        db.execute(
            "UPDATE engine_journal SET request_key = (SELECT request_key FROM engine_journal WHERE command_id = 9)"
            " WHERE command_id = 30"
        )
    with pytest.raises(CorruptionError, match="index of requests"):
        store.check()


def test_a_reader_left_to_the_collector_lets_its_sessions_go(postgres: PostgresServer, url: str) -> None:
    reader = PostgresStore.open_for_read(f"{url}&application_name=left")
    for at in range(0, 40, 10):
        reader.page(STREAM, at, at + 10)
    del reader
    for _ in range(500):
        if postgres.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'left'") == [(0,)]:
            return
        time.sleep(0.01)
    raise AssertionError("a session stayed")


# The schema


def test_the_schema_is_this(url: str, postgres: PostgresServer) -> None:
    (name,) = [part.split("%3D")[1] for part in url.split("&") if part.startswith("options")]
    rows = postgres.execute(
        "SELECT table_name, string_agg(column_name || ' ' || udt_name || CASE is_nullable WHEN 'NO' THEN '' ELSE '?' END, ', '"
        " ORDER BY ordinal_position) FROM information_schema.columns WHERE table_schema = %s GROUP BY 1 ORDER BY 1",
        (name,),
    )
    assert {table: columns for table, columns in rows if table.startswith("engine_")} | {} == SCHEMA | {
        table: columns for table, columns in rows if table not in SCHEMA and table.startswith("engine_")
    }
    assert schema_state(url) == (len(migrations()),) * 2


SCHEMA = {
    "engine_schema": "one int4, version int4",
    "engine_streams": "stream text, identity bytea, claim int8, epoch int8, holder_host text?, holder_pid int8?, "
    "holder_since_ms int8?, backend_pid int8?, backend_start timestamptz?",
    "engine_epochs": "stream text, number int8, document bytea",
    "engine_journal": "stream text, command_id int8, request_key uuid, received_at_ms int8, rejected bool, "
    "events_reduced bool, epoch int8, duration_ns int8, recorded_at_ms int8, chain bytea, part_hashes bytea, "
    "checksum bytea, type text, entity_id text?, data_bytes bytea, result_bytes bytea, events_bytes bytea, "
    "changes_bytes bytea?, pre_digest_bytes bytea?, post_digest_bytes bytea?",
    "engine_images": "image uuid, name text?, size int8, began_at timestamptz",
    "engine_image_chunks": "image uuid, number int8, data bytea",
}


def test_opening_never_migrates(postgres_url: str, postgres: PostgresServer) -> None:
    for opening in (open_reader, open_writer, lambda url: Runtime.open(Till, journal=url, snapshots="memory:")):
        with pytest.raises(StoreUnavailable, match="no tables") as refused:
            opening(postgres_url)
        assert "recovery migrate" in refused.value.hint
    assert schema_state(postgres_url)[0] == 0


def test_two_who_migrate_at_once_do_it_once(postgres_url: str) -> None:
    outcomes: list[Any] = []

    def run() -> None:
        try:
            outcomes.append(migrate(postgres_url))
        except Exception as error:
            outcomes.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(isinstance(one, tuple) for one in outcomes), outcomes
    assert schema_state(postgres_url) == (len(migrations()),) * 2


def test_the_printed_sql_makes_the_same_schema(postgres_url: str) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as db:
        db.execute(schema_sql(postgres_url).encode())
    assert migrate(postgres_url) == (len(migrations()),) * 2


def test_a_schema_of_ones_own(url: str, postgres: PostgresServer) -> None:
    apart = postgres.url(schema='till "x"')
    migrate(apart)
    with closing(PostgresStore.open_for_write(apart, STREAM)) as store:
        store.create(STREAM, b"identity")
        store.append_epoch(STREAM, 1, b"")
        store.append(STREAM, 1, make_entries(1, 2))
    assert postgres.execute('SELECT count(*) FROM "till ""x""".engine_events') == [(2,)]
    postgres.execute('DROP SCHEMA "till ""x""" CASCADE')


def test_a_newer_schema_is_not_touched(url: str) -> None:
    with psycopg.connect(url) as db:
        db.execute("UPDATE engine_schema SET version = 99")
    for opening in (open_reader, open_writer, migrate):
        with pytest.raises(NewerSchema, match="newer release"):
            opening(url)


# URLs, and what they say


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:s3cr3t@x@h/d",
        "postgresql://u:s3cr3t/x@h/d",
        "postgresql://u:s3cr3t?x@h/d",
        "postgresql://u:s3cr3t@h:port/d",
        "postgresql://u@h/d?password=s3cr3t&nonsense",
        "postgresql://u:s3cr3t@h/d?ride_out_s=soon",
        "postgresql:u:s3cr3t@h",
        "postgresql://u:s3cr3t@127.0.0.1:1/d",
        "postgresql://u@127.0.0.1:1/d?password=s3cr3t",
        "postgresql+psycopg://u:s3%63r3t@/d?host=/nowhere",
    ],
)
def test_no_error_repeats_a_password(url: str) -> None:
    with pytest.raises((UsageError, StoreUnavailable, UnknownScheme)) as refused:
        open_reader(url)
    error: BaseException | None = refused.value
    while error is not None:
        assert "s3cr3t" not in f"{error} {error!r} {getattr(error, 'hint', '')}"
        error = error.__cause__


def test_of_what_the_driver_says_the_line_that_counts_is_told() -> None:
    said = "connection failed: connection to server failed: FATAL:  starting up\nDETAIL:  Not consistent yet.\n"
    told = refusal(psycopg.OperationalError(said), parse("postgresql://u@h/d")).message
    assert told == "postgresql://u@h/d: connection failed: connection to server failed: FATAL:  starting up"


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_a_url_leads_there_in_every_form(url: str, scheme: str) -> None:
    open_reader(url.replace("postgresql", scheme, 1)).close()


def test_a_place_says_where_it_is_and_nothing_more() -> None:
    place = parse("postgresql://till:s3cr3t@db.example:6432/shop?schema=x&sslmode=require&ride_out_s=5")
    assert place.location == "postgresql://till@db.example:6432/shop?schema=x"
    assert (place.schema, place.ride_out_s, place.pause_max_s) == ("x", 5, 10)
    assert parse("postgresql://a,b/shop?target_session_attrs=read-write").location == "postgresql:///shop?host=a,b"
