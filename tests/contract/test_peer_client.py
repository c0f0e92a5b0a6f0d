"""The emulator is believable: a public client of the real site works against it, unchanged.

The peer is poe-api-wrapper 1.7.1 (legacy generation). It runs in an environment of its own, in another
process, with its own logic throughout: page, formkey script, settings, subscriptions, websocket, GraphQL.
Only name resolution and the connecting socket are redirected, with a certificate made for the run. Both of
its classes, the async and the sync one, are taken through the same conversation.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.poe_emulator import Account, PoeEmulator, peer_session
from tests.poe_emulator.peer_venv import make_trust, peer_python

LIMIT_S = 60.0


@pytest.fixture(scope="module")
def python() -> Path:
    return peer_python()


async def converse(python: Path, emu: PoeEmulator, account: Account, authority: Path, api: str) -> dict[str, Any]:
    """Run the peer's conversation and return what it reported."""
    order = {"tls_port": emu.tls_port, "port": emu.port, "tokens": account.cookies, "api": api}
    order["file"] = str(authority.with_name("note.txt"))
    process = await asyncio.create_subprocess_exec(
        str(python),
        str(Path(peer_session.__file__)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"SSL_CERT_FILE": str(authority), "PYTHONUNBUFFERED": "1"},
    )
    try:
        async with asyncio.timeout(LIMIT_S):
            out, err = await process.communicate(json.dumps(order).encode() + b"\n")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    said = [line for line in out.decode().splitlines() if line.startswith("RESULT ")]
    assert said, f"{err.decode()[-3000:]}\nrefused: {emu.stats.reasons()}"
    result: dict[str, Any] = json.loads(said[-1].removeprefix("RESULT "))
    return result


@pytest.mark.parametrize("api", ["async", "sync"])
async def test_the_peer_holds_a_conversation(python: Path, tmp_path: Path, api: str) -> None:
    trust = make_trust(tmp_path)
    (tmp_path / "note.txt").write_text("an attachment")
    async with PoeEmulator(
        profile="legacy", tls=trust.server, asset_base="https://psc2.cf2.poecdn.net", page_bytes=200_000
    ) as emu:
        account = emu.add_account(points_spelling="old")
        said = await converse(python, emu, account, trust.authority, api)

        assert emu.stats.reasons() == []
        assert said["formkey"] == account.formkey
        first, second, again, stopped = said["turns"]
        assert first["text"] == "echo: hello from afar [[chunks:6]]"
        assert first["state"] == "complete"
        assert "".join(first["pieces"]) == first["text"]
        assert len(first["pieces"]) > 3
        assert second["text"] == "recall: hello from afar [[chunks:6]] | [[recall]] and [[delay:0.02]]"
        assert second["chat_id"] == first["chat_id"]
        assert again["text"] == second["text"]
        assert stopped["state"] == "incomplete"
        assert said["settings"]["messagePointInfo"]["messagePointBalance"] == 3000 - 3 * 20
        assert "GPT-4o-Mini" in said["bots"]
        assert said["history"]["data"]["gpt4_o_mini"][0]["chatId"] == first["chat_id"]

        assert account.chats == {}
        assert account.stats.chats_created == account.stats.chats_deleted == 1
        assert account.stats.sends_accepted == account.stats.answers_completed == 3
        assert account.stats.regenerates == account.stats.answers_cancelled == account.stats.uploads == 1
        assert account.stats.breaks == 1
        assert account.stats.sockets_opened == 1
        assert account.stats.socket_cookies == []
        assert account.stats.pages == account.stats.settings_reads == 1
        assert account.stats.telemetry == 0
