"""One connection to PostgreSQL: what a URL says, how it is opened, kept through a restart, and what its errors mean.

Shared by the journal and by images, and part of neither.  ``psycopg`` is the driver; this module is imported only when a URL
asks for it.

A URL is libpq's own, ``postgresql://USER@HOST:PORT/DATABASE?...`` (also ``postgres://`` and ``postgresql+psycopg://``), several
hosts and ``target_session_attrs`` among it.  These parameters are ours, all others go to libpq:

====================  =========  ==========================================================================================
``schema``            *unset*    the schema the tables lie in; otherwise the first of the role's search_path
``ride_out_s``        60         how long a lost server is waited for before the call fails
``pause_max_s``       10         a transaction idle for longer is ended by the server, so that a paused writer holds up nobody
====================  =========  ==========================================================================================

**Errors** are told apart by SQLSTATE, never by their text.  No message here holds a password.
"""

from __future__ import annotations

import select
import threading
import time
import urllib.parse
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, NamedTuple, TypeVar

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from journal.errors import CorruptionError, RecoveryError, StoreUnavailable, UnknownScheme, UsageError
from journal.redaction import redacted

Db = psycopg.Connection[Any]
T = TypeVar("T")

SCHEMES: Final = ("postgresql", "postgres", "postgresql+psycopg")
RIDE_OUT_S: Final = 60.0
PAUSE_MAX_S: Final = 10.0
GOOD_COMMITS: Final = ("on", "remote_apply")

# A server whose host is gone says nothing; the kernel must find out.  A DSN's own values win.
_DEFAULTS: Final = {
    "connect_timeout": "10",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
    "fallback_application_name": "recovery",
}
_SECRETS: Final = ("password", "sslpassword", "oauth_client_secret")

SHUTDOWNS: Final = frozenset({"57P01", "57P02", "57P03", "57P05", "25P03", "25P04"})
"""The server ends the session, or is not up yet: the connection is to be made again."""
UNKNOWN: Final = frozenset({"40003"})
RETRIED: Final = frozenset({"40001", "40P01"})
_DAMAGED: Final = frozenset({"XX001", "XX002"})
_HINTS: Final = {
    "25006": "the server takes no writes: name the primary, or add target_session_attrs=read-write",
    "28": "check user and password: PGPASSWORD, ~/.pgpass",
    "3D": "create the database: createdb",
    "3F": "run: recovery migrate --journal {location}",
    "42P01": "run: recovery migrate --journal {location}",
    "42501": "grant the role what docs/postgresql.md lists",
    "53": "check the server's disk, memory and max_connections",
    "55P03": "another session holds it; try again",
}


class PostgresPlace(NamedTuple):
    """What a URL names.  ``conninfo`` may hold a password, ``location`` never does."""

    conninfo: str
    location: str
    schema: str | None
    ride_out_s: float
    pause_max_s: float
    secrets: tuple[str, ...]

    def hidden(self, text: str) -> str:
        """A text of the driver's without what is secret in it."""
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text


def parse(url: str) -> PostgresPlace:
    """The place of a URL.  UsageError, which repeats nothing that may be a password, where it is not well formed."""
    scheme, _, rest = url.partition("://")
    if scheme not in SCHEMES or "://" not in url:
        raise UnknownScheme(
            f"{redacted(url)!r} is not how PostgreSQL is named", hint="use postgresql://USER@HOST/DATABASE"
        )
    authority, slash, path = rest.partition("/")
    if authority.count("@") > 1 or "@" in path:
        raise UsageError(
            "the URL has an @ in an unexpected place", hint="write an @ within a password as %40, a / as %2F"
        )
    path, _, query = path.partition("?")
    # As libpq reads it, to which a + is a +.
    pairs = [part.partition("=") for part in query.split("&") if part]
    given = {urllib.parse.unquote(name): urllib.parse.unquote(value) for name, _, value in pairs}
    schema = given.pop("schema", None) or None
    ride_out_s = _seconds(given.pop("ride_out_s", None), "ride_out_s", RIDE_OUT_S)
    pause_max_s = _seconds(given.pop("pause_max_s", None), "pause_max_s", PAUSE_MAX_S)
    try:
        said = conninfo_to_dict(f"postgresql://{authority}{slash}{path}?{_query(given)}")
    except psycopg.ProgrammingError:
        # Not the driver's words, nor its exception: it repeats what it cannot read, which may be a password.
        raise UsageError("the URL is not one that libpq reads", hint="use postgresql://USER@HOST/DATABASE") from None
    options = {**_DEFAULTS, **{name: str(value) for name, value in said.items() if value is not None}}
    # Not ours to take from the environment: names and keys are UTF-8.
    options["client_encoding"] = "utf8"
    secrets = tuple(options[name] for name in _SECRETS if options.get(name))
    return PostgresPlace(
        make_conninfo("", **options), _location(options, schema), schema, ride_out_s, pause_max_s, secrets
    )


def _seconds(text: str | None, name: str, default: float) -> float:
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 86_400:
        raise UsageError(f"{name} is {text!r}; it is a number of seconds, at most a day")
    return value


def _location(options: dict[str, str], schema: str | None) -> str:
    """The URL that leads there, built from what is harmless in it."""
    user = urllib.parse.quote(options.get("user", ""), safe="")
    host, port = options.get("host", ""), options.get("port", "")
    shown = {}
    if host and not host.startswith("/") and "," not in host:
        authority = f"{host}:{port}" if port else host
    else:
        authority = ""
        shown = {name: value for name, value in (("host", host), ("port", port)) if value.strip(",")}
    if schema:
        shown["schema"] = schema
    query = f"?{_query(shown)}" if shown else ""
    return f"postgresql://{f'{user}@' if user else ''}{authority}/{options.get('dbname', '')}{query}"


def _query(parameters: dict[str, str]) -> str:
    return urllib.parse.urlencode(parameters, safe="/,", quote_via=urllib.parse.quote)


def is_lost(error: psycopg.Error, db: Db | None) -> bool:
    """Whether an error means that the connection is gone, or was never made."""
    state = error.sqlstate
    if state is None:
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError) and (db is None or db.closed)
    return state in SHUTDOWNS or state[:2] == "08" or (db is not None and db.closed)


def refusal(error: psycopg.Error, place: PostgresPlace) -> RecoveryError:
    """What an error of the server's means to who asked: StoreUnavailable, or CorruptionError where it finds damage."""
    state = error.sqlstate or ""
    text = place.hidden(f"{place.location}: {state and f'{state} '}{_line(error)}")
    if state in _DAMAGED:
        return CorruptionError(text, hint="restore a copy")
    hint = _HINTS.get(state) or _HINTS.get(state[:2]) or "check that the server runs, and its log"
    return StoreUnavailable(text, hint=hint.format(location=place.location))


_EXPLAINING: Final = ("\t", "DETAIL:", "HINT:")


def _line(error: psycopg.Error) -> str:
    primary = error.diag.message_primary if error.sqlstate else None
    # Of several hosts the last; what is indented, or a detail, only explains the line before it.
    lines = [line for line in (primary or str(error)).strip().splitlines() if not line.startswith(_EXPLAINING)]
    return lines[-1] if lines else type(error).__name__


class Link:
    """A connection that is made again where it was lost.  Used by one thread at a time; ``turn`` is whose turn it is.

    ``restored`` is called with every new connection but the first, before anything else is done with it: it raises where
    things are no longer as they were.
    """

    def __init__(self, place: PostgresPlace) -> None:
        self.place = place
        self.turn = threading.RLock()
        self.durable = False
        self.warnings: list[str] = []
        self.restored: Callable[[Db], None] = lambda db: None
        self.last_error: psycopg.Error | None = None
        self._db: Db | None = None
        self._opened = False

    def db(self) -> Db:
        """The connection, made if there is none.  Raises psycopg's errors."""
        if self._db is not None and not self._db.closed and not _was_ended(self._db):
            return self._db
        self.drop()
        db = self._connected()
        try:
            if self._opened:
                self.restored(db)
        except BaseException:
            db.close()
            raise
        self._db, self._opened = db, True
        return db

    def _connected(self) -> Db:
        db = psycopg.connect(self.place.conninfo, autocommit=True)
        try:
            warnings = self.warnings  # not self: a connection that knows its owner would outlive it
            db.add_notice_handler(lambda said: _note(said, warnings))
            self.durable = set_up(db, self.place)
        except BaseException:
            db.close()
            raise
        return db

    def drop(self) -> None:
        """Forget the connection; the next use makes another."""
        if self._db is not None:
            self._db.close()
            self._db = None

    def lost(self, error: psycopg.Error) -> bool:
        """Whether an error means that this connection is gone."""
        return is_lost(error, self._db)

    def open(self) -> None:
        """Connect.  StoreUnavailable at once where there is no server; one that is just starting is waited for."""
        patience = Patience(self.place)
        while True:
            try:
                self.db()
                return
            except psycopg.Error as error:
                if error.sqlstate != "57P03" or not patience.wait():
                    raise refusal(error, self.place) from error

    def run(self, work: Callable[[Db], T]) -> T:
        """``work(connection)``, again from the start on a new connection where it was lost: only for what may be done twice.

        StoreUnavailable once the server was away for ``ride_out_s``.
        """
        patience = Patience(self.place)
        with self.turn:
            while True:
                try:
                    return work(self.db())
                except psycopg.Error as error:
                    self.wait_for_return(error, patience)

    def wait_for_return(self, error: psycopg.Error, patience: Patience) -> None:
        """Wait a moment after a lost connection; raises where the error is of another kind, or patience is at its end."""
        absent = error.sqlstate == "25006" and self._opened  # a standby answers while the new primary is on its way
        if not (self.lost(error) or absent) or not patience.wait():
            self.roll_back()
            raise refusal(error, self.place) from error
        self.drop()

    def roll_back(self) -> None:
        """End a transaction that went wrong, if there is one."""
        db = self._db
        if db is None or db.closed:
            return
        try:
            if db.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                db.execute("ROLLBACK")
        except psycopg.Error:
            self.drop()

    def close(self, farewell: Callable[[Db], None] = lambda db: None) -> None:
        """End the session, with a last word if it still stands."""
        db = self._db
        if db is not None and not db.closed:
            with suppress(psycopg.Error):
                farewell(db)
        self.drop()


def _was_ended(db: Db) -> bool:
    """Whether the server ended the session while nothing was asked of it.  Known before anything is sent, so without doubt."""
    looked = select.poll()
    looked.register(db.fileno(), select.POLLIN)
    try:
        while looked.poll(0):
            db.pgconn.consume_input()  # a notice; or the server's last word, and then the end, which raises
    except psycopg.Error:
        return True
    return db.closed


def _note(said: psycopg.errors.Diagnostic, warnings: list[str]) -> None:
    if said.severity_nonlocalized == "WARNING":
        warnings.append(said.sqlstate or "")


class Patience:
    """How long a server is waited for, from the first time it was missed."""

    def __init__(self, place: PostgresPlace) -> None:
        self._limit_s = place.ride_out_s
        self._deadline: float | None = None
        self._pause_s = 0.05

    def wait(self) -> bool:
        """Sleep a moment; False, at once, where the time is over."""
        now = time.monotonic()
        if self._deadline is None:
            self._deadline = now + self._limit_s
        if now >= self._deadline:
            return False
        time.sleep(min(self._pause_s, max(0.0, self._deadline - now)))
        self._pause_s = min(1.0, self._pause_s * 1.5)
        return True


def set_up(db: Db, place: PostgresPlace) -> bool:
    """Make a session ours; whether what it commits survives a power cut."""
    statements: list[sql.Composed] = []
    if place.schema:
        statements.append(sql.SQL("SET search_path TO {}").format(sql.Identifier(place.schema)))
    if setting(db, "synchronous_commit") not in (None, *GOOD_COMMITS):
        statements.append(sql.SQL("SET synchronous_commit TO {}").format(sql.Literal("on")))
    for name, seconds in (
        ("idle_in_transaction_session_timeout", place.pause_max_s),
        ("lock_timeout", max(place.ride_out_s, place.pause_max_s) + 5),
    ):
        if setting(db, name) is not None:
            statements.append(sql.SQL("SET {} TO {}").format(sql.Identifier(name), sql.Literal(int(seconds * 1000))))
    for statement in statements:
        db.execute(statement)
    switches = [setting(db, name) for name in ("fsync", "full_page_writes")]
    # A server that has no such switch cannot have it turned off.
    return "off" not in switches and setting(db, "synchronous_commit") in (None, *GOOD_COMMITS)


def setting(db: Db, name: str) -> str | None:
    """A setting of the session; None where the server has none of that name."""
    row = db.execute("SELECT current_setting(%s, true)", (name,)).fetchone()
    return None if row is None else row[0]


def described(db: Db, place: PostgresPlace) -> dict[str, str]:
    """What durability rests on, and versions, in words."""
    names = ("fsync", "full_page_writes", "synchronous_commit", "synchronous_standby_names")
    found = {name: setting(db, name) for name in names}
    said = {name: "not said by this server" if value is None else value or "none" for name, value in found.items()}
    return {
        "location": place.location,
        "server": setting(db, "server_version") or "unknown",
        **said,
        "ride_out_s": f"{place.ride_out_s:g}",
        "pause_max_s": f"{place.pause_max_s:g}",
    }
