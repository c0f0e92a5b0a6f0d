"""Rounds of parallel calls against one budget, over several gateways, some of which are killed in the middle."""

from __future__ import annotations

import asyncio
import random
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import msgspec
from pymongo import AsyncMongoClient

from tests.money.house import UNIT, House
from tests.money.site import MODEL


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is done in each round."""

    rounds: int = 50
    calls: int = 500
    budget: str = "1.00"
    cost: str = "0.01"
    processes: int = 4
    kills: int = 2
    """Of processes per round, at random moments."""
    seed: int = 1


class Round(msgspec.Struct, kw_only=True):
    """What came of one: amounts in units of 10**-8 USD."""

    number: int
    answered: int = 0
    refused: dict[str, int] = {}
    broken: int = 0
    kills: int = 0
    site: int = 0
    """What the provider was really asked, times the price."""
    ledger: int = 0
    spent: int = 0
    """By the budget's own document."""
    reserved: int = 0
    orphans: int = 0
    cap: int = 0
    seconds: float = 0.0
    wrong: list[str] = []


async def run(plan: Plan, home: Path, mongo_uri: str, db: str) -> list[Round]:
    """All rounds; each says itself what was wrong with it."""
    rng = random.Random(plan.seed)
    rounds = []
    async with House(home, mongo_uri, db, processes=plan.processes, cost=plan.cost) as house:
        await house.admin("POST", "/prices", model=MODEL, currency="USD", request=plan.cost)
        client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(mongo_uri, tz_aware=True)
        try:
            for number in range(plan.rounds):
                rounds.append(await _round(plan, number, house, client[db], rng))
        finally:
            await client.close()
    return rounds


async def _round(plan: Plan, number: int, house: House, db: Any, rng: random.Random) -> Round:
    told = Round(number=number, cap=int(Decimal(plan.budget) * UNIT))
    began = time.monotonic()
    tab = f"round-{number}"
    budget = {"unit": "USD", "period": "total", "amount": plan.budget}
    key_id, text = await house.key(tab, budgets=[budget])
    limits = httpx.Limits(max_connections=200)
    headers = {"Authorization": f"Bearer {text}"}
    async with httpx.AsyncClient(headers=headers, limits=limits, trust_env=False, timeout=60) as client:
        calls = [asyncio.create_task(_call(client, house, tab, told, rng)) for _ in range(plan.calls)]
        await _strike(plan, house, told, rng)
        await asyncio.gather(*calls)
    await _settled(house, db, key_id)
    await _judge(told, house, db, key_id, tab, plan)
    told.seconds = time.monotonic() - began
    return told


async def _call(client: httpx.AsyncClient, house: House, tab: str, told: Round, rng: random.Random) -> None:
    await asyncio.sleep(rng.uniform(0, 1.5))
    gateway = rng.choice(house.gateways)
    body = {
        "model": MODEL,
        "stream": rng.random() < 0.3,
        "messages": [
            {"role": "user", "content": f"[[tab:{tab}]] [[seconds:{rng.uniform(0, 0.3):.3f}]] {rng.random()}"}
        ],
    }
    try:
        answer = await client.post(f"{gateway.base_url}/v1/chat/completions", json=body)
    except httpx.TransportError:
        told.broken += 1
        return
    if answer.status_code == 200 and b'"error"' not in answer.content:
        told.answered += 1
    else:
        code = answer.json()["error"]["code"] if answer.status_code != 200 else "in the stream"
        told.refused[code] = told.refused.get(code, 0) + 1


async def _strike(plan: Plan, house: House, told: Round, rng: random.Random) -> None:
    """Kill some gateways at random moments while the calls run; all are alive again afterwards."""
    revivals = []
    for victim in rng.sample(range(plan.processes), plan.kills):
        await asyncio.sleep(rng.uniform(0.05, 0.6))
        house.kill(victim)
        told.kills += 1
        revivals.append(asyncio.create_task(house.revive(victim)))
    await asyncio.gather(*revivals)


async def _settled(house: House, db: Any, key_id: str) -> None:
    """Wait until nothing is under way: no spool of the dead is left, no reservation is open."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        alive = sum(gateway.process is not None for gateway in house.gateways)
        folders = len(list((house.home / "data" / "spool").iterdir()))
        held = [each async for each in db.buckets.find({"_id": {"$regex": key_id}})]
        if folders <= alive and all(not each.get("liens") for each in held):
            return
        await asyncio.sleep(0.1)


async def _judge(told: Round, house: House, db: Any, key_id: str, tab: str, plan: Plan) -> None:
    told.orphans = await db.ledger.count_documents({"key_id": key_id, "status": "orphaned"})
    before = [each async for each in db.buckets.find({"_id": {"$regex": key_id}})]
    if any(each["spent"] > told.cap for each in before):
        told.wrong.append(f"spent beyond the cap before reconciliation: {[each['spent'] for each in before]}")
    await house.admin("POST", "/ledger/reconcile", older_than_seconds=0)
    told.site = int((await house.figures())["calls"].get(tab, 0) * Decimal(plan.cost) * UNIT)
    deadline = time.monotonic() + 60
    while (wrong := await _compared(told, db, key_id)) and time.monotonic() < deadline:
        await asyncio.sleep(0.5)  # corrections are shipped behind
    told.wrong += wrong
    if told.site > told.cap:
        told.wrong.append(f"the provider was asked for {told.site}, the cap is {told.cap}")
    if any(code == "invalid_api_key" for code in told.refused):
        told.wrong.append("somebody got 401")


async def _compared(told: Round, db: Any, key_id: str) -> list[str]:
    """In what the provider, the ledger and the budget differ as they are now."""
    rows = [each async for each in db.ledger.find({"key_id": key_id})]
    told.ledger = sum(each.get("billed_cost") or 0 for each in rows)
    buckets = [each async for each in db.buckets.find({"_id": {"$regex": key_id}})]
    told.spent = sum(each["spent"] for each in buckets)
    told.reserved = sum(sum(_amounts(each)) for each in buckets)
    wrong = []
    if told.spent > told.cap:
        wrong.append(f"spent {told.spent} of {told.cap}")
    if told.reserved:
        wrong.append(f"{told.reserved} stay reserved")
    if told.ledger != told.site:
        wrong.append(f"the ledger says {told.ledger}, the provider {told.site}")
    if told.spent != told.ledger:
        wrong.append(f"the budget says {told.spent}, the ledger {told.ledger}")
    return wrong


def _amounts(bucket: dict[str, Any]) -> list[int]:
    liens = bucket.get("liens") or {}
    entries = liens.values() if isinstance(liens, dict) else liens
    return [each if isinstance(each, int) else int(each["amount"]) for each in entries]
