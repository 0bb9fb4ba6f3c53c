"""Idempotency-Key over HTTP: what each request is answered, by a raw ASGI application and by the FastAPI example."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from recovery import Command, OutcomeUnknown, Overloaded, Runtime, UsageError, ValueRefused
from recovery.examples import http_wallet
from recovery.http import REQUEST_ID, IdempotencyKeys, acknowledged, parsed_key, problem_of, request_id_of
from tests.engines import Till
from tests.places import new_place

Handler = Callable[[Any, bytes], Awaitable[Any]]


def tenant(scope: Any) -> str:
    return dict(scope["headers"]).get(b"x-tenant", b"").decode()


def raw(handle: Handler, **options: Any) -> IdempotencyKeys:
    """An application without a framework: the handler's value as JSON."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        message = await receive() if scope["method"] == "POST" else {}
        body = json.dumps(await handle(scope, message.get("body", b""))).encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    return IdempotencyKeys(app, tenant=tenant, **options)


def depositing(till: Runtime) -> Handler:
    async def handle(scope: Any, body: bytes) -> Any:
        receipt = await acknowledged(till, Command("deposit", json.loads(body), request_id=scope[REQUEST_ID]))
        return {"command_id": receipt.command_id, "response": receipt.raise_for_rejection().response}

    return handle


async def post(app: Any, body: object, key: str | None = '"k1"', **headers: str) -> httpx.Response:
    fields = headers | ({} if key is None else {"Idempotency-Key": key})
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://till") as client:
        return await client.post("/deposits", content=content, headers=fields)


def told(response: httpx.Response, status: int, code: str) -> None:
    assert (response.status_code, response.json()["code"]) == (status, code), response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json().keys() >= {"type", "title", "status", "detail"}
    assert response.json()["status"] == status


def run(scenario: Callable[[Runtime], Awaitable[None]], place: str = "memory:") -> None:
    with Runtime.open(Till, journal=place, snapshots="memory:") as till:
        asyncio.run(scenario(till))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "key"),
    [
        ('"8e03978e-40d5-43dd-bc93-6894a57f9324"', "8e03978e-40d5-43dd-bc93-6894a57f9324"),
        ('  "a b"  ', "a b"),
        (r'"say \"hi\" \\ bye"', r'say "hi" \ bye'),
        ('"k";v=1; w="x;y\\"" ;b', None),  # no space before a parameter's semicolon
        ('"k";v=1; w="x;y\\"";b', "k"),
        ('"k";a=?1;b=:aGk=:;c=tok/en;d=-1.5', "k"),
        ("", None),
        ('""', None),
        ("k", None),
        ("'k'", None),
        ('"k', None),
        ('"k" "l"', None),
        ('"k", "l"', None),
        ('"k";', None),
        ('"k";V=1', None),
        (r'"a\b"', None),
        ('"ä"', None),
        ('"a\tb"', None),
        ('"' + "x" * 255 + '"', "x" * 255),
        ('"' + "x" * 256 + '"', None),
    ],
)
def test_a_key_is_a_structured_field_string(value: str, key: str | None) -> None:
    assert parsed_key(value) == key


def test_what_a_key_becomes_is_fixed_and_keeps_tenants_apart() -> None:
    assert str(request_id_of("shop", "k1")) == "7c54bf47-c146-50fa-bc20-01be8939e15f"
    assert request_id_of("a", "bc") != request_id_of("ab", "c")
    assert request_id_of("1", "x") != request_id_of("", "1x")


def test_a_retry_gets_the_recorded_answer_and_nothing_is_done_twice() -> None:
    async def scenario(till: Runtime) -> None:
        app = raw(depositing(till))
        first = await post(app, {"number": "ada", "cents": 5})
        assert (first.status_code, first.json()) == (200, {"command_id": 1, "response": {"cents": 5}})
        await post(app, {"number": "ada", "cents": 1}, '"k2"')
        again = await post(app, {"number": "ada", "cents": 5})
        assert again.content == first.content
        told(await post(app, {"number": "ada", "cents": 6}), 422, "reused")
        other = await post(app, {"number": "ada", "cents": 6}, **{"X-Tenant": "another"})
        assert other.json() == {"command_id": 3, "response": {"cents": 12}}
        assert till.engine.accounts["ada"].cents == 12

    run(scenario)


def test_a_retry_after_a_restart_gets_the_recorded_answer() -> None:
    place = f"memory:{new_place()}"
    answers: list[bytes] = []

    async def scenario(till: Runtime) -> None:
        answers.append((await post(raw(depositing(till)), {"number": "ada", "cents": 5})).content)
        rejected = await post(raw(depositing(till)), {"number": "bob", "cents": -5}, '"k2"')
        told(rejected, 422, "insufficient")
        answers.append(rejected.content)

    run(scenario, place)
    run(scenario, place)
    assert answers[:2] == answers[2:]


def test_wrong_requests_are_refused_before_anything_is_done() -> None:
    async def scenario(till: Runtime) -> None:
        app = raw(depositing(till), body_bytes_max=100, docs_url="https://docs/keys")
        told(await post(app, {}, None), 400, "key-missing")
        missing = await post(app, {}, None)
        assert missing.json()["type"] == "https://docs/keys#key-missing"
        told(await post(app, {}, "k1"), 400, "key-malformed")
        told(await post(app, {"number": "ada", "cents": 5, "x": "y" * 100}), 413, "size")
        told(await post(app, {"number": "ada", "cents": 5, "more": 1}), 400, "usage")
        told(await post(app, {"number": "ada", "cents": "5"}), 400, "usage")
        assert till.head.command_id == 0
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://till") as client:
            twice = [("Idempotency-Key", '"a"'), ("Idempotency-Key", '"b"')]
            told(await client.post("/", content=b"{}", headers=twice), 400, "key-malformed")

            async def endless() -> AsyncIterator[bytes]:
                while True:
                    yield b"x" * 60

            told(await client.post("/", content=endless(), headers={"Idempotency-Key": '"a"'}), 413, "size")

    run(scenario)


def test_requests_that_need_no_key_pass() -> None:
    async def nothing(scope: Any, body: bytes) -> Any:
        return REQUEST_ID in scope

    async def scenario() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(raw(nothing)), base_url="http://till") as client:
            assert (await client.get("/")).json() is False
            assert (await client.patch("/", headers={"Idempotency-Key": '"k"'})).json() is True
            told(await client.patch("/"), 400, "key-missing")

    asyncio.run(scenario())


def test_a_retry_while_the_first_is_at_work_is_told_to_wait() -> None:
    leave = threading.Event()

    async def scenario(till: Runtime) -> None:
        app = raw(depositing(till))
        blocked = asyncio.get_running_loop().run_in_executor(None, till.query, lambda engine: leave.wait(20))
        first = asyncio.create_task(post(app, {"number": "ada", "cents": 5}))
        await asyncio.sleep(0.05)
        for body in ({"number": "ada", "cents": 5}, {"number": "ada", "cents": 6}):
            busy = await post(app, body)
            told(busy, 409, "busy")
            assert busy.headers["retry-after"] == "1"
        other = asyncio.create_task(post(app, {"number": "ada", "cents": 1}, '"k2"'))
        leave.set()
        assert (await first).status_code == (await other).status_code == 200
        await blocked
        assert (await post(app, {"number": "ada", "cents": 5})).content == (await first).content

    run(scenario)


def test_a_client_that_goes_away_cancels_nothing() -> None:
    leave = threading.Event()

    async def scenario(till: Runtime) -> None:
        app = raw(depositing(till))
        blocked = asyncio.get_running_loop().run_in_executor(None, till.query, lambda engine: leave.wait(20))
        first = asyncio.create_task(post(app, {"number": "ada", "cents": 5}))
        await asyncio.sleep(0.05)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        retry = asyncio.create_task(
            post(app, {"number": "ada", "cents": 5})
        )  # the key is free again, the command under way
        await asyncio.sleep(0.05)
        leave.set()
        assert (await retry).json() == {"command_id": 1, "response": {"cents": 5}}
        await blocked
        assert till.head.command_id == 1

    run(scenario)


def test_a_client_that_goes_away_within_its_body_is_left_alone() -> None:
    async def scenario() -> None:
        said: list[Any] = []

        async def unreachable(scope: Any, body: bytes) -> Any:
            pytest.fail("called")

        messages = iter([{"type": "http.request", "body": b"x", "more_body": True}, {"type": "http.disconnect"}])

        async def receive() -> Any:
            return next(messages)

        async def send(message: Any) -> None:
            said.append(message)

        headers = [(b"idempotency-key", b'"k"')]
        scope = {"type": "http", "method": "POST", "path": "/", "headers": headers}
        await raw(unreachable)(scope, receive, send)
        assert said == []

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (Overloaded("/var/lib/queue"), 503, "full"),
        (OutcomeUnknown("host 10.0.0.7"), 503, "retry"),
        (UsageError("say it otherwise"), 400, "usage"),
        (ValueRefused("$.x is NaN"), 400, "usage"),
    ],
)
def test_errors_say_what_to_do_and_nothing_of_the_server(error: Any, status: int, code: str) -> None:
    async def failing(scope: Any, body: bytes) -> Any:
        raise error

    response = asyncio.run(post(raw(failing), {}))
    told(response, status, code)
    assert ("retry-after" in response.headers) == (status == 503)
    assert "var" not in response.text
    assert "10.0.0.7" not in response.text
    assert problem_of(error).code == code


def test_a_closed_engine_is_unavailable_and_defects_stay_defects() -> None:
    with Runtime.open(Till, journal="memory:", snapshots="memory:") as till:
        app = raw(depositing(till))
    told(asyncio.run(post(app, {"number": "ada", "cents": 5})), 503, "unavailable")

    async def broken(scope: Any, body: bytes) -> Any:
        raise RuntimeError("a defect")

    with pytest.raises(RuntimeError):
        asyncio.run(post(raw(broken), {}))


def test_no_body_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(till: Runtime) -> None:
        app = raw(depositing(till), body_bytes_max=200)
        for body, key in (({"number": "secret", "cents": "secret"}, '"secret"'), ({"x": "secret" * 40}, '"k"')):
            await post(app, body, key)
        await post(app, {"number": "secret", "cents": 5}, '"k"')
        await post(app, {"number": "secret", "cents": 6}, '"k"')
        told(await post(app, {"number": "secret", "cents": -60}, '"l"'), 422, "insufficient")

    with caplog.at_level(logging.DEBUG, "recovery"):
        run(scenario)
    assert "POST /deposits: 422 reused" in caplog.text
    assert "secret" not in caplog.text


# The example with FastAPI


@asynccontextmanager
async def wallet(monkeypatch: pytest.MonkeyPatch, place: str) -> AsyncIterator[httpx.AsyncClient]:
    monkeypatch.setenv("RECOVERY_JOURNAL", place)
    app = http_wallet.app
    async with (
        http_wallet.lifespan(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://wallet") as client,
    ):
        yield client


def test_the_fastapi_example(monkeypatch: pytest.MonkeyPatch) -> None:
    place = f"memory:{new_place()}"

    async def scenario() -> None:
        for life in range(2):
            async with wallet(monkeypatch, place) as client:
                key = {"Idempotency-Key": '"k1"', "X-Tenant": "shop"}
                body = {"account": "ada", "cents": 500}
                answer = await client.post("/deposits", json=body, headers=key)
                assert (answer.status_code, answer.json()) == (200, {"command_id": 1, "cents": 500}), life
                assert (await client.get("/accounts/ada")).json() == {"cents": 500}
                assert (await client.get("/accounts/bob")).status_code == 404
                told(await client.post("/deposits", json={**body, "cents": 1}, headers=key), 422, "reused")
                told(await client.post("/deposits", json=body), 400, "key-missing")
                poor = {"Idempotency-Key": '"k2"', "X-Tenant": "shop"}
                taken = {"account": "ada", "cents": -501}
                told(await client.post("/deposits", json=taken, headers=poor), 422, "insufficient")
                assert (await client.post("/deposits", json={"account": 1}, headers=poor)).status_code == 422

    asyncio.run(scenario())
