"""How much the gateway adds: requests per second and latency against a bare ASGI application of the same run.

    .venv/bin/python -m benchmarks.gateway_load [--accounts 1 100 10000] [--seconds 3] [--rounds 3]

One worker on one core, the load (``wrk``, a Debian package) on another; whole product path on the mock upstream: key
check, catalogue, choice, slot, adapter, settling, log line, metrics. Everything on loopback, bounded in time. The bare
application runs in the same round; the ratio to it is the figure to quote, medians over the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import msgspec

from poe_gateway.clock import Ids, SystemClock
from poe_gateway.pool.account import Account, Balance, Cause, Health, State
from poe_gateway.storage.account_admin import MongoAccountAdmin
from poe_gateway.storage.client import connect
from poe_gateway.storage.embedded import ensure_mongod
from poe_gateway.vault import Vault, new_key

ROOT = Path(__file__).resolve().parents[1]
SERVICE_KEY = "svc_bench_Z9y8X7w6V5u4"
ADMIN_KEY = "adm_bench_A1b2C3d4E5f6G7h8I9j0"
REQUEST = json.dumps({"model": "mock-1", "messages": [{"role": "user", "content": "hello"}]})


class Figures(msgspec.Struct, frozen=True):
    """Of one run of wrk."""

    rps: float
    p50_ms: float
    p99_ms: float
    errors: int


def measure(port: int, script: Path, connections: int, seconds: int) -> Figures:
    """One run; latencies in milliseconds."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(script)]
    if (os.cpu_count() or 1) > 1:
        command = ["taskset", "-c", "1", *command]
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    out = subprocess.run([*command, url], capture_output=True, text=True, check=True, timeout=seconds + 30).stdout

    def latency(percent: str) -> float:
        found = re.search(rf"{percent}%\s+([\d.]+)(us|ms|s)", out)
        assert found, out
        return float(found[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[found[2]]

    rate = re.search(r"Requests/sec:\s+([\d.]+)", out)
    assert rate, out
    bad = sum(int(number) for number in re.findall(r"Non-2xx or 3xx responses: (\d+)", out))
    return Figures(float(rate[1]), latency("50"), latency("99"), bad)


@contextlib.contextmanager
def server(app: str, port: int, environment: dict[str, str], log: Path, checkout: Path = ROOT) -> Iterator[int]:
    """One uvicorn worker on core 0; yields its pid."""
    command = [sys.executable, "-m", "uvicorn", app, "--port", str(port), "--no-access-log", "--log-level", "warning"]
    if (os.cpu_count() or 1) > 1:
        command = ["taskset", "-c", "0", *command]
    with log.open("ab") as out:
        process = subprocess.Popen(
            command, cwd=log.parent, env={**environment, "PYTHONPATH": str(checkout)}, stdout=out, stderr=out
        )
    try:
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(httpx.TransportError):
                httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False)
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(log.read_text()[-3000:])
            time.sleep(0.05)
        yield process.pid
    finally:
        process.terminate()
        process.wait(20)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def fill(uri: str, db: str, key: str, count: int) -> None:
    """Accounts on the mock upstream, in service, with points enough."""
    client = connect(uri)
    admin, vault, ids = MongoAccountAdmin(client[db]), Vault((key,)), Ids()
    sealed, now = vault.seal({}), datetime.now(UTC)
    turns = asyncio.Semaphore(32)

    async def one(number: int) -> None:
        async with turns:
            account = Account(
                id=ids.new("acct", 16),
                provider="mock",
                name=f"bench-{number}",
                offer="mock",
                health=Health(state=State.ACTIVE, cause=Cause.HEALTHY, since=now),
                balance=Balance(points=1000, estimated=False, measured_at=now),
                created_at=now,
                updated_at=now,
            )
            await admin.upsert("mock", account.name, lambda present: present or account, sealed, vault.kid)

    await asyncio.gather(*(one(number) for number in range(count)))
    await client.close()


def environment(home: Path, uri: str, db: str, key: str) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "MONGODB_URI": uri,
        "MONGODB_DB": db,
        "FERNET_KEY": key,
        "ADMIN_API_KEY": ADMIN_KEY,
        "SERVICE_API_KEYS_BOOTSTRAP": SERVICE_KEY,
        "GATEWAY_DATA_DIR": str(home / "data"),
        "MAX_INFLIGHT_PER_ACCOUNT": "100",
        "LOG_FORMAT": "json",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--accounts", type=int, nargs="+", default=[1, 100, 10_000])
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("This benchmark needs wrk (Debian package wrk).")
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as folder:
        home = Path(folder)
        script = home / "post.lua"
        script.write_text(
            'wrk.method = "POST"\n'
            f"wrk.body = [[{REQUEST}]]\n"
            f'wrk.headers["Authorization"] = "Bearer {SERVICE_KEY}"\n'
            'wrk.headers["Content-Type"] = "application/json"\n'
        )
        mongo = asyncio.run(ensure_mongod(home, SystemClock()))
        try:
            run(home, mongo.uri, script, options.accounts, options.seconds, options.rounds)
        finally:
            asyncio.run(mongo.release())


def run(home: Path, uri: str, script: Path, sizes: list[int], seconds: int, rounds: int) -> None:
    key = new_key()
    results: dict[str, list[tuple[Figures, Figures, float]]] = {}
    with contextlib.ExitStack() as stack:
        targets: dict[str, tuple[int, int]] = {}
        port = 18_400
        bare_env = {"PATH": os.environ["PATH"]}
        targets["bare"] = (port, stack.enter_context(server("benchmarks.bare:app", port, bare_env, home / "bare.log")))
        for size in sizes:
            port += 1
            db = f"bench_{size}"
            # The first start makes the indexes; the accounts come in between.
            with server("poe_gateway.app:app", port, environment(home, uri, db, key), home / f"{size}.log"):
                pass
            asyncio.run(fill(uri, db, key, size))
            pid = stack.enter_context(
                server("poe_gateway.app:app", port, environment(home, uri, db, key), home / f"{size}.log")
            )
            targets[f"{size} accounts"] = (port, pid)
        time.sleep(3)
        for _ in range(rounds):
            for name, (port, pid) in targets.items():
                measure(port, script, 64, 1)
                before = cpu_seconds(pid)
                many = measure(port, script, 64, seconds)
                cpu = (cpu_seconds(pid) - before) / max(1.0, many.rps * seconds) * 1e6
                results.setdefault(name, []).append((many, measure(port, script, 1, seconds), cpu))
    report(results)


def report(results: dict[str, list[tuple[Figures, Figures, float]]]) -> None:
    def median(name: str, pick: int, field: str) -> float:
        return statistics.median(getattr(row[pick], field) for row in results[name])

    base_rps, base_p50 = median("bare", 0, "rps"), median("bare", 1, "p50_ms")
    heads = ("target", "req/s (64 connections)", "of bare", "CPU us/req", "p50 ms (one at a time)", "added p50 ms")
    print("| " + " | ".join((*heads, "p99 ms", "errors")) + " |")
    print("|---" * (len(heads) + 2) + "|")
    for name, rows in results.items():
        rps, p50 = median(name, 0, "rps"), median(name, 1, "p50_ms")
        cpu = statistics.median(row[2] for row in rows)
        errors = sum(row[0].errors + row[1].errors for row in rows)
        print(
            f"| {name} | {rps:,.0f} | {rps / base_rps:.0%} | {cpu:.0f} | {p50:.3f} | {p50 - base_p50:.3f} "
            f"| {median(name, 1, 'p99_ms'):.3f} | {errors} |"
        )


if __name__ == "__main__":
    main()
