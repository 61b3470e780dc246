"""The same write path in FastAPI, SQLAlchemy 2 and asyncpg, as a careful team would first write it: a yardstick.

It does what `POST /transactions` does: validate, insert the transaction once per (account_id, idempotency_key), update
the balance, write the outbox row, one commit.
Run: DATABASE_URL=postgresql+asyncpg://... uvicorn fastapi_service:app --workers 2 --loop uvloop --http httptools --no-access-log
"""
import hashlib
import json
import os
import uuid
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Header, HTTPException, Query, Response
from pydantic import BaseModel, Field
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

engine = create_async_engine(os.environ["DATABASE_URL"], pool_size=int(os.environ.get("POOL", "16")), max_overflow=0)
app = FastAPI()

SCHEMA = """
create table if not exists transactions(
  id uuid primary key, account_id text not null, idempotency_key text not null, request_hash bytea not null,
  amount numeric(20,4) not null, currency char(3) not null, direction text not null, metadata jsonb,
  created_at timestamptz not null default now(), unique(account_id, idempotency_key));
create index if not exists transactions_by_account on transactions(account_id, created_at desc, id desc);
create table if not exists balances(
  account_id text, currency char(3), balance numeric(20,4) not null, primary key(account_id, currency));
create table if not exists outbox(
  id bigserial primary key, key text not null, payload jsonb not null, created_at timestamptz not null default now());
"""


class NewTransaction(BaseModel):
    account_id: Annotated[str, Field(min_length=1, max_length=64)]
    amount: Annotated[Decimal, Field(gt=0, max_digits=20, decimal_places=4)]
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")]
    direction: Literal["credit", "debit"]
    metadata: dict[str, Any] | None = None


@app.on_event("startup")
async def migrate() -> None:
    async with engine.begin() as c:
        await c.execute(text("select pg_advisory_xact_lock(1)"))
        for s in SCHEMA.split(";"):
            if s.strip():
                await c.execute(text(s))


INSERT = text(
    "insert into transactions(id, account_id, idempotency_key, request_hash, amount, currency, direction, metadata)"
    " values (:id, :account_id, :key, :hash, :amount, :currency, :direction, cast(:metadata as jsonb))"
    " on conflict (account_id, idempotency_key) do nothing returning created_at"
)
BALANCE = text(
    "insert into balances values (:account_id, :currency, :delta) on conflict (account_id, currency)"
    " do update set balance = balances.balance + excluded.balance returning balance"
)
OUTBOX = text("insert into outbox(key, payload) values (:key, cast(:payload as jsonb))")
EXISTING = text("select id, request_hash, created_at from transactions where account_id = :a and idempotency_key = :k")


@app.post("/transactions", status_code=201)
async def create(tx: NewTransaction, response: Response, idempotency_key: Annotated[str, Header(max_length=255)]):
    body = tx.model_dump(mode="json")
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).digest()
    id = uuid.uuid4()
    async with engine.begin() as c:
        row = (await c.execute(INSERT, {
            "id": id, "account_id": tx.account_id, "key": idempotency_key, "hash": digest, "amount": tx.amount,
            "currency": tx.currency, "direction": tx.direction, "metadata": json.dumps(tx.metadata)})).first()
        if row is None:
            old = (await c.execute(EXISTING, {"a": tx.account_id, "k": idempotency_key})).one()
            if old.request_hash != digest:
                raise HTTPException(422, "idempotency key reused with another body")
            response.status_code = 200
            return {"id": old.id, **body, "created_at": old.created_at}
        delta = tx.amount if tx.direction == "credit" else -tx.amount
        await c.execute(BALANCE, {"account_id": tx.account_id, "currency": tx.currency, "delta": delta})
        await c.execute(OUTBOX, {"key": tx.account_id, "payload": json.dumps({"id": str(id), **body})})
    return {"id": id, **body, "created_at": row.created_at}


@app.get("/accounts/{account_id}/balance")
async def balance(account_id: str):
    async with engine.connect() as c:
        rows = (await c.execute(text("select currency, balance from balances where account_id = :a"), {"a": account_id})).all()
    if not rows:
        raise HTTPException(404, "no such account")
    return {"account_id": account_id, "balances": [{"currency": r.currency, "balance": str(r.balance)} for r in rows]}


@app.get("/transactions")
async def history(account_id: str, start: Annotated[datetime | None, Query(alias="from")] = None,
                  end: Annotated[datetime | None, Query(alias="to")] = None, limit: Annotated[int, Query(le=200)] = 50):
    async with engine.connect() as c:
        rows = (await c.execute(text(
            "select id, amount, currency, direction, created_at from transactions where account_id = :a"
            " and (cast(:s as timestamptz) is null or created_at >= :s) and (cast(:e as timestamptz) is null or created_at < :e)"
            " order by created_at desc, id desc limit :l"), {"a": account_id, "s": start, "e": end, "l": limit})).all()
    return {"items": [dict(r._mapping) for r in rows]}
