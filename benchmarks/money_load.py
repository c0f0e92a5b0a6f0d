"""What limits, budgets and the ledger add to a request: the same gateway, keys with and without them, one run.

    .venv/bin/python -m benchmarks.money_load [--seconds 3] [--rounds 3] [--before CHECKOUT]

Targets: a bare ASGI application; a key without limits (the ledger writes every attempt all the same); a key with
rates, a parallel limit and two budgets of its own and of its organisation; and with ``--before`` another checkout of
this project, say one from before there was a ledger. One worker on one core, ``wrk`` on another, mock upstream,
loopback. All targets take turns; quote ratios within one run.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import httpx

from benchmarks.gateway_load import (
    ADMIN_KEY,
    REQUEST,
    ROOT,
    SERVICE_KEY,
    Figures,
    cpu_seconds,
    environment,
    fill,
    measure,
    server,
)
from poe_gateway.clock import SystemClock
from poe_gateway.storage.embedded import ensure_mongod
from poe_gateway.vault import new_key

LIMITS = {
    "requests_minute": 100_000_000,
    "requests_hour": 1_000_000_000,
    "requests_day": 1_000_000_000,
    "tokens_minute": 1_000_000_000,
    "parallel": 10_000,
}
BUDGETS = [{"unit": "USD", "period": period, "amount": "1000000"} for period in ("day", "month")]


def limited_key(port: int) -> str:
    """A key with limits and budgets of its own and of its organisation, and a price for everything."""
    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}/admin", headers=headers, trust_env=False) as admin:
        terms = {"limits": LIMITS, "budgets": BUDGETS}
        admin.post("/prices", json={"currency": "USD", "input": "0.5", "output": "1.5"}).raise_for_status()
        org = admin.post("/orgs", json={"name": "bench", **terms}).raise_for_status().json()["id"]
        made = admin.post("/keys", json={"name": "bench", "org": org, **terms}).raise_for_status().json()
    return str(made["key"])


def script(home: Path, name: str, key: str) -> Path:
    path = home / f"{name}.lua"
    path.write_text(
        'wrk.method = "POST"\n'
        f"wrk.body = [[{REQUEST}]]\n"
        f'wrk.headers["Authorization"] = "Bearer {key}"\n'
        'wrk.headers["Content-Type"] = "application/json"\n'
    )
    return path


def run(home: Path, uri: str, seconds: int, rounds: int, before: Path | None) -> None:
    secret = new_key()
    results: dict[str, list[tuple[Figures, Figures, float]]] = {}
    with contextlib.ExitStack() as stack:
        targets: dict[str, tuple[int, int, Path]] = {}
        plain = script(home, "plain", SERVICE_KEY)
        bare_env = {"PATH": os.environ["PATH"]}
        pid = stack.enter_context(server("benchmarks.bare:app", 18_500, bare_env, home / "bare.log"))
        targets["bare"] = (18_500, pid, plain)
        # A process and a database for each: who has served two of them has more behind it.
        checkouts = {"no limits": (18_501, ROOT), "limits and budgets": (18_503, ROOT)}
        checkouts |= {"before": (18_502, before)} if before is not None else {}
        for number, (name, (port, checkout)) in enumerate(checkouts.items()):
            own = home / str(number)
            own.mkdir()
            settings = environment(own, uri, f"money_{number}", secret)
            with server("poe_gateway.app:app", port, settings, own / "log", checkout):
                pass
            asyncio.run(fill(uri, f"money_{number}", secret, 100))
            pid = stack.enter_context(server("poe_gateway.app:app", port, settings, own / "log", checkout))
            limited = name == "limits and budgets"
            targets[name] = (port, pid, script(home, "limited", limited_key(port)) if limited else plain)
        time.sleep(3)
        for _ in range(rounds):
            for name, (port, pid, wish) in targets.items():
                measure(port, wish, 64, 1)
                used = cpu_seconds(pid)
                many = measure(port, wish, 64, seconds)
                cpu = (cpu_seconds(pid) - used) / max(1.0, many.rps * seconds) * 1e6
                results.setdefault(name, []).append((many, measure(port, wish, 1, seconds), cpu))
    report(results)


def report(results: dict[str, list[tuple[Figures, Figures, float]]]) -> None:
    reference = statistics.median(row[0].rps for row in results["no limits"])
    print(
        "| target | req/s (64 connections) | of 'no limits' | CPU us/req | p50 ms (one at a time) | p99 ms | errors |"
    )
    print("|---" * 7 + "|")
    for name, rows in results.items():
        rps = statistics.median(row[0].rps for row in rows)
        print(
            f"| {name} | {rps:,.0f} | {rps / reference:.2f} | {statistics.median(row[2] for row in rows):.0f} "
            f"| {statistics.median(row[1].p50_ms for row in rows):.3f} "
            f"| {statistics.median(row[1].p99_ms for row in rows):.3f} "
            f"| {sum(row[0].errors + row[1].errors for row in rows)} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--before", type=Path, help="another checkout of this project")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("This benchmark needs wrk (Debian package wrk).")
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as folder:
        home = Path(folder)
        mongo = asyncio.run(ensure_mongod(home, SystemClock()))
        try:
            run(home, mongo.uri, options.seconds, options.rounds, options.before)
        finally:
            asyncio.run(mongo.release())


if __name__ == "__main__":
    main()
