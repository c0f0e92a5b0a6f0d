"""``python -m tests.poe_emulator --port 0 --accounts 3``: run until stopped.

When it listens, one JSON line goes to standard output:
{"base_url", "ws_base_url", "accounts": [{"email", "cookies", "user_agent", "formkey"}]}.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal

from .server import PoeEmulator


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.poe_emulator", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--profile", choices=("current", "legacy", "both"), default="current")
    parser.add_argument("--accounts", type=int, default=1)
    parser.add_argument("--balance", type=int, default=3000, help="points of each account")
    parser.add_argument("--concurrency", type=int, default=3, help="messages at once per account")
    parser.add_argument("--clearance", action="store_true", help="accounts have a cf_clearance")
    parser.add_argument("--formkey-form", choices=("plain", "seeded"), default="plain")
    parser.add_argument("--formkey-scope", choices=("account", "shared"), default="account")
    parser.add_argument("--revision-mode", choices=("strict", "ignored"), default="strict")
    parser.add_argument("--page-bytes", type=int, default=0, help="pad pages to about this size")
    return parser.parse_args()


async def _serve(arguments: argparse.Namespace) -> None:
    emulator = PoeEmulator(
        host=arguments.host,
        port=arguments.port,
        profile=arguments.profile,
        formkey_form=arguments.formkey_form,
        formkey_scope=arguments.formkey_scope,
        revision_mode=arguments.revision_mode,
        page_bytes=arguments.page_bytes,
    )
    for number in range(1, arguments.accounts + 1):
        emulator.add_account(
            balance=arguments.balance,
            concurrency=arguments.concurrency,
            cf_clearance=f"clearance-{number}" if arguments.clearance else None,
        )
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with emulator:
        shown = ("email", "cookies", "user_agent", "formkey")
        accounts = [{key: account.as_dict()[key] for key in shown} for account in emulator.accounts]
        line = {"base_url": emulator.base_url, "ws_base_url": emulator.ws_base_url, "accounts": accounts}
        print(json.dumps(line), flush=True)
        await stopped.wait()


if __name__ == "__main__":
    asyncio.run(_serve(_arguments()))
