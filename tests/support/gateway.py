"""A real gateway for the tests: uvicorn in processes of its own, on a real mongod, called over HTTP."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
from openai import AsyncOpenAI, DefaultHttpxClient, OpenAI

from poe_gateway.vault import new_key
from tests.support.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
ADMIN_KEY = "adm_test_A1b2C3d4E5f6G7h8I9j0"
SERVICE_KEY = "svc_test_Z9y8X7w6V5u4"


single = httpx.Client(
    verify=False,  # to make ready for TLS, which none of these speak, takes longer than a call
    timeout=60,
    trust_env=False,
    limits=httpx.Limits(max_keepalive_connections=0),
)
"""For single calls, each over a connection of its own."""


def eventually(true: Callable[[], object], seconds: float = 60.0) -> None:
    """Return when it is true; not in so many seconds: the test fails."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it never became true"
        time.sleep(0.05)


class GatewayServer:
    """One gateway. ``settings`` are environment variables; a None removes one of the defaults."""

    def __init__(self, home: Path, mongo_uri: str, db: str, *, workers: int = 1, **settings: str | None) -> None:
        self.home = home
        self.workers = workers
        self.port = free_port()
        self.base_url = f"http://127.0.0.1:{self.port}"
        self.log = home / f"gateway-{self.port}.log"
        defaults: dict[str, str | None] = {
            "MONGODB_URI": mongo_uri,
            "MONGODB_DB": db,
            "FERNET_KEY": new_key(),
            "ADMIN_API_KEY": ADMIN_KEY,
            "SERVICE_API_KEYS_BOOTSTRAP": SERVICE_KEY,
            "GATEWAY_DATA_DIR": str(home / "data"),
            "LOG_FORMAT": "json",
            "OUTBOUND_ALLOW": "127.0.0.1,localhost",
        }
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        merged = {**defaults, **settings}
        self.environment = {**kept, **{name: value for name, value in merged.items() if value is not None}}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, seconds: float = 60.0) -> GatewayServer:
        """Start and wait until it answers."""
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "uvicorn", "poe_gateway.app:app", "--host", "127.0.0.1"),
                    *("--port", str(self.port), "--workers", str(self.workers), "--no-access-log"),
                    # As `poe-gateway serve` has it: clients keep connections for five seconds, as long as uvicorn does.
                    *("--timeout-keep-alive", "75"),
                ],
                cwd=self.home,
                env={**self.environment, "PYTHONPATH": str(ROOT)},
                stdout=out,
                stderr=out,
            )
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"the gateway ended with {self.process.returncode}:\n{self.output()[-4000:]}")
            with contextlib.suppress(httpx.TransportError):
                if single.get(f"{self.base_url}/healthz").status_code == 200 and self._all_up():
                    return self
            time.sleep(0.05)
        raise RuntimeError(f"the gateway did not start:\n{self.output()[-4000:]}")

    def _all_up(self) -> bool:
        return self.workers == 1 or self.output().count("Application startup complete") >= self.workers

    def stop(self) -> None:
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                for pid in self.worker_pids():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                self.process.kill()
                self.process.wait()
        self.process = None

    def output(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def log_lines(self) -> list[dict[str, Any]]:
        """The JSON lines of the log."""
        return [json.loads(line) for line in self.output().splitlines() if line.startswith("{")]

    def worker_pids(self) -> list[int]:
        """The processes that serve (children of the supervisor, or the only one)."""
        assert self.process is not None
        if self.workers == 1:
            return [self.process.pid]
        found = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        serving = []
        for pid in map(int, found):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    serving.append(pid)
        return serving

    @contextlib.contextmanager
    def running(self) -> Iterator[GatewayServer]:
        try:
            yield self.start()
        finally:
            self.stop()

    # Callers.

    def client(self, key: str = SERVICE_KEY, **options: Any) -> OpenAI:
        defaults = {"max_retries": 0, "http_client": DefaultHttpxClient(verify=False)}
        return OpenAI(api_key=key, base_url=f"{self.base_url}/v1", **{**defaults, **options})

    def async_client(self, key: str = SERVICE_KEY, **options: Any) -> AsyncOpenAI:
        return AsyncOpenAI(api_key=key, base_url=f"{self.base_url}/v1", **{"max_retries": 0, **options})

    def admin(self) -> httpx.Client:
        return httpx.Client(
            base_url=self.base_url,
            headers={"Authorization": f"Bearer {ADMIN_KEY}"},
            timeout=60,
            trust_env=False,
            verify=False,
        )

    def accounts(self) -> list[dict[str, Any]]:
        """All accounts as the operator sees them."""
        with self.admin() as admin:
            found: list[dict[str, Any]] = []
            page = 1
            while True:
                answer = admin.get("/admin/accounts", params={"page": page, "page_size": 200}).raise_for_status().json()
                found += answer["data"]
                if len(found) >= answer["total"]:
                    return found
                page += 1


class EmulatorServer:
    """The Poe emulator as a process of its own, so that its figures are nobody else's."""

    def __init__(self, *options: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.poe_emulator", "--port", "0", *options],
            cwd=ROOT,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        line = json.loads(self._process.stdout.readline())
        self.base_url: str = line["base_url"]
        self.ws_base_url: str = line["ws_base_url"]
        self.accounts: list[dict[str, Any]] = line["accounts"]

    def control(self, method: str, path: str, **body: Any) -> Any:
        """Call the control interface."""
        answer = single.request(method, f"{self.base_url}/_control{path}", json=body or None)
        answer.raise_for_status()
        return answer.json()

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(10)

    @staticmethod
    def upsert_body(account: dict[str, Any]) -> dict[str, Any]:
        """What an operator would hand in for one of the emulator's accounts."""
        cookies = account["cookies"]
        body = {
            "email": account["email"],
            "poe_p_b": cookies.get("p-b"),
            "p_lat": cookies.get("p-lat"),
            "poe_cf_clearance": cookies.get("cf_clearance"),
            "poe_cf_bm": cookies.get("__cf_bm"),
            "user_agent": account["user_agent"],
            "formkey": account["formkey"],
        }
        return {key: value for key, value in body.items() if value}
