"""A wallet over HTTP, with FastAPI: ``uvicorn recovery.examples.http_wallet:app``; its settings are those of every verb.

Kill it at any moment and start it again: a client that sends the same request with the same Idempotency-Key gets the same answer,
and the money moves once.  ::

    curl -X POST localhost:8000/deposits -H 'Idempotency-Key: "k1"' -H 'X-Tenant: shop' \\
         -H 'Content-Type: application/json' -d '{"account": "ada", "cents": 500}'

``X-Tenant`` stands for what your authentication finds out; a header that clients may choose is no authentication.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import fastapi
from pydantic import BaseModel
from starlette.datastructures import Headers

from recovery import Command, Context, Index, Reject, Runtime, Table, TableEngine, command
from recovery.http import REQUEST_ID, IdempotencyKeys, acknowledged


class Account(NamedTuple):
    """What somebody holds."""

    cents: int


class Wallet(TableEngine):
    """Deposits and withdrawals."""

    name = "wallet"

    accounts = Table(str, Account)
    by_wealth = Index(accounts, key=lambda name, account: (-account.cents, name))

    @command
    def deposit(self, context: Context, account: str, cents: int) -> dict[str, int]:
        """Put money in, or take it out."""
        held = self.accounts.get(account, Account(0)).cents + cents
        if held < 0:
            raise Reject("insufficient", f"{account} holds {held - cents}")
        self.accounts[account] = Account(held)
        context.emit("BalanceChanged", {"account": account, "delta": cents}, key=account)
        return {"cents": held}


class Deposit(BaseModel):
    """A request's body."""

    account: str
    cents: int


@asynccontextmanager
async def lifespan(app: fastapi.FastAPI) -> AsyncIterator[None]:
    """The engine lives as long as the application."""
    with Runtime.open(Wallet) as runtime:
        app.state.runtime = runtime
        yield


app = fastapi.FastAPI(lifespan=lifespan)
app.add_middleware(IdempotencyKeys, tenant=lambda scope: Headers(scope=scope).get("x-tenant", ""))


@app.post("/deposits")
async def deposit(asked: Deposit, request: fastapi.Request) -> dict[str, Any]:
    """Done once, however often it is sent."""
    made = Command("deposit", asked.model_dump(), request_id=request.scope[REQUEST_ID])
    receipt = await acknowledged(request.app.state.runtime, made)
    return {"command_id": receipt.command_id, **receipt.raise_for_rejection().response}


@app.get("/accounts/{name}")
def account(name: str, request: fastapi.Request) -> dict[str, int]:
    """Between commands, and durable."""
    held = request.app.state.runtime.query(lambda wallet: wallet.accounts.get(name))
    if held is None:
        raise fastapi.HTTPException(404)
    return {"cents": held.cents}
