"""HTTP: restart-safe acknowledgement behind ``Idempotency-Key``, as a raw ASGI middleware; no framework needed.

The header is that of draft-ietf-httpapi-idempotency-key-header: an RFC 9651 string, ``Idempotency-Key: "8e03978e-…"``.  It
becomes the ``request_id`` of the command, and so the *journal* is the memory of what was answered: a retry is answered from the
record, after a crash too, and there is no second store to keep in step.

======================================  ======  =============  ===============================================
the request                             status  ``code``       what its sender does
======================================  ======  =============  ===============================================
has no key                              400     key-missing    sends one
has a key that is no RFC 9651 string    400     key-malformed  puts it in double quotes
cannot be a command                     400     usage          mends it
is there while the same is at work      409     busy           sends it again after ``Retry-After`` seconds
has too large a body                    413     size
uses a key again, with other data       422     reused         takes another key
was rejected by the engine              422     the Reject's   takes it as the answer: it is recorded
came while the queue was full           503     full           sends it again; nothing was done
has an outcome that is not known        503     retry          sends it again, with the **same** key
came while the engine could not work    503     unavailable    sends it again, with the **same** key
======================================  ======  =============  ===============================================

Errors are ``application/problem+json`` (RFC 9457) with ``code``.  Bodies are never logged, and nothing of a failure inside the
server is told to the client.
"""

from __future__ import annotations

import asyncio
import http
import json
import logging
import re
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, NamedTuple

from journal.errors import OutcomeUnknown, Overloaded, RequestConflict, UnavailableError, UsageError
from journal.records import Command, Receipt, Reject
from recovery.runtime import Runtime

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

BODY_BYTES_MAX: Final = 2**20
KEY_CHARS_MAX: Final = 255
REQUEST_ID: Final = "recovery.request_id"
"""Where the scope holds the request's id, a UUID, for the application to give to ``Command``."""

# RFC 9651: a string in quotes, with \" and \\ for those two; parameters may follow, of any bare item.
_STRING: Final = r"\"((?:[ !#-\[\]-~]|\\[\"\\])*)\""
_TOKEN: Final = r"[A-Za-z*][A-Za-z0-9!#$%&'*+.^_`|~:/-]*"
_ITEM: Final = (
    rf"(?:{_STRING.replace('(', '(?:', 1)}|{_TOKEN}|-?[0-9]+(?:\.[0-9]+)?|@-?[0-9]+|\?[01]|:[A-Za-z0-9+/=]*:)"
)
_KEY: Final = re.compile(rf" *{_STRING}(?:; *[a-z*][a-z0-9_.*-]*(?:={_ITEM})?)* *")
_NAMESPACE: Final = uuid.UUID("2f3f7b3c-3d0f-5d59-9a66-0c1ce2e5d6a1")

logger = logging.getLogger("recovery")


async def acknowledged(runtime: Runtime, command: Command) -> Receipt:
    """The receipt of a command once it is durable.  Who stops waiting cancels nothing."""
    return await asyncio.wrap_future(runtime.submit(command))


def request_id_of(tenant: str, key: str) -> uuid.UUID:
    """The ``request_id`` under which a tenant's key is recorded: for looking one up, as in ``recovery log --request-id``."""
    # The length in front keeps ("a", "bc") and ("ab", "c") apart.
    return uuid.uuid5(_NAMESPACE, f"{len(tenant)}:{tenant}{key}")


def parsed_key(value: str) -> str | None:
    """The string of an ``Idempotency-Key`` field's value (RFC 9651, its parameters ignored); None where it is none."""
    found = _KEY.fullmatch(value)
    if found is None:
        return None
    key = re.sub(r"\\(.)", r"\1", found[1])
    return key if 0 < len(key) <= KEY_CHARS_MAX else None


class Problem(NamedTuple):
    """One problem document.  ``retry_after_s`` is None where sending the same again would not help."""

    status: int
    code: str
    detail: str
    retry_after_s: int | None = None


_NO_KEY: Final = Problem(
    400, "key-missing", "This request must carry an Idempotency-Key, and be retried with the same one."
)
_BAD_KEY: Final = Problem(
    400,
    "key-malformed",
    f"Idempotency-Key must be one string in double quotes, of 1 to {KEY_CHARS_MAX} ASCII characters.",
)
_BUSY: Final = Problem(409, "busy", "A request with this Idempotency-Key is being worked on.", 1)
_REUSED: Final = Problem(422, "reused", "This Idempotency-Key was used before, for another request.")
_FULL: Final = Problem(503, "full", "Too many requests wait; nothing was done.  Send it again with the same key.", 1)
_UNKNOWN: Final = Problem(503, "retry", "It may or may not have been done.  Send it again with the same key.", 2)
_DOWN: Final = Problem(503, "unavailable", "It could not be done now.  Send it again with the same key.", 2)


class IdempotencyKeys:
    """ASGI middleware around an application that turns requests into commands.

    ``tenant(scope)`` says whose the key is: take it from what authentication put into the scope, never from what the client may
    choose, or one client can read another's answers.  ``applies(scope)`` says which requests need a key: POST and PATCH, unless
    given.  The application finds the id in ``scope["recovery.request_id"]``, gives it to ``Command``, and raises what
    ``acknowledged`` raises.  ``docs_url`` is the page that problem types point to.

    The whole body, at most ``body_bytes_max``, is taken before the application is called.
    """

    def __init__(
        self,
        app: Application,
        *,
        tenant: Callable[[Scope], str],
        applies: Callable[[Scope], bool] | None = None,
        body_bytes_max: int = BODY_BYTES_MAX,
        docs_url: str | None = None,
    ) -> None:
        self._app = app
        self._tenant = tenant
        self._applies = applies or (lambda scope: scope["method"] in ("POST", "PATCH"))
        self._body_bytes_max = body_bytes_max
        self._docs_url = docs_url
        self._at_work: set[uuid.UUID] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http" or not self._applies(scope):
            await self._app(scope, receive, send)
            return
        request_id = self._request_id(scope)
        if isinstance(request_id, Problem):
            await self._refuse(request_id, scope, send)
            return
        body = await self._body(scope, receive)
        if body is None:  # the client went away
            return
        if isinstance(body, Problem):
            await self._refuse(body, scope, send)
        elif request_id in self._at_work:
            await self._refuse(_BUSY, scope, send)
        else:
            self._at_work.add(request_id)
            try:
                await self._serve({**scope, REQUEST_ID: request_id}, _replayed(body, receive), send)
            finally:
                self._at_work.discard(request_id)

    def _request_id(self, scope: Scope) -> uuid.UUID | Problem:
        fields = [value for name, value in scope["headers"] if name.lower() == b"idempotency-key"]
        if not fields:
            return _NO_KEY
        # Two fields are one list (RFC 9110), and a list is no string.
        key = parsed_key(b", ".join(fields).decode("latin-1"))
        return _BAD_KEY if key is None else request_id_of(self._tenant(scope), key)

    async def _body(self, scope: Scope, receive: Receive) -> bytes | Problem | None:
        """All of it; a problem where it is too large; None where the client went away before its end."""
        too_large = Problem(413, "size", f"The body must not be larger than {self._body_bytes_max} bytes.")
        for name, value in scope["headers"]:
            if name.lower() == b"content-length" and value.isdigit() and int(value) > self._body_bytes_max:
                return too_large
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return None
            part = message.get("body", b"")
            size += len(part)
            if size > self._body_bytes_max:
                return too_large
            parts.append(part)
            if not message.get("more_body", False):
                return b"".join(parts)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except (UsageError, UnavailableError, Reject) as error:
            if started:
                raise
            await self._refuse(problem_of(error), scope, send)

    async def _refuse(self, problem: Problem, scope: Scope, send: Send) -> None:
        phrase = http.HTTPStatus(problem.status).phrase
        logger.info("%s %s: %d %s", scope["method"], scope["path"], problem.status, problem.code)
        document = {
            "type": f"{self._docs_url}#{problem.code}" if self._docs_url else "about:blank",
            "title": phrase,
            "status": problem.status,
            "detail": problem.detail,
            "code": problem.code,
        }
        body = json.dumps(document, ensure_ascii=False).encode()
        headers = [
            (b"content-type", b"application/problem+json"),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"),
        ]
        if problem.retry_after_s is not None:
            headers.append((b"retry-after", str(problem.retry_after_s).encode()))
        await send({"type": "http.response.start", "status": problem.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def problem_of(error: UsageError | UnavailableError | Reject) -> Problem:
    """What a client is told of an error: what is wrong with the request in full, of the server's troubles only what to do."""
    if isinstance(error, Reject):
        return Problem(422, error.code, error.message or error.code)
    if isinstance(error, RequestConflict):
        return _REUSED
    if isinstance(error, UsageError):
        return Problem(400, "usage", error.message)
    return _FULL if isinstance(error, Overloaded) else _UNKNOWN if isinstance(error, OutcomeUnknown) else _DOWN


def _replayed(body: bytes, receive: Receive) -> Receive:
    """The body, once, and then what comes after it: that the client went away."""
    given = False

    async def receive_replayed() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_replayed
