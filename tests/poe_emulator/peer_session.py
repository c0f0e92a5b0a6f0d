"""Runs inside the peer's environment, as a script: the public client holds one conversation.

The client's own code is left as it is. Only what lies below is changed: names of the site resolve to
loopback (and no other name resolves), and connections to ports 443 and 80 there go to the emulator.

Input, on standard input: {"tls_port", "port", "tokens", "file", "api": "async" | "sync"}.
Output: one line ``RESULT {...}`` with what the client returned.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import socket
import sys
from typing import Any

LOOPBACK = "127.0.0.1"


def redirect(tls_port: int, plain_port: int) -> None:
    """Send the site's names to the emulator, and nothing anywhere else."""
    resolve, connect = socket.getaddrinfo, socket.socket.connect
    ports = {443: tls_port, 80: plain_port}

    def getaddrinfo(host: Any, *args: Any, **options: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name == "poe.com" or name.endswith((".poe.com", ".poecdn.net")):
            name = LOOPBACK
        if name != LOOPBACK:
            raise socket.gaierror(f"{name} is not to be reached from this test")
        return resolve(name, *args, **options)

    def connect_there(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple) and address[0] == LOOPBACK:
            address = (LOOPBACK, ports.get(address[1], address[1]))
        connect(self, address)

    socket.getaddrinfo = getaddrinfo
    socket.socket.connect = connect_there  # type: ignore[method-assign, assignment]


BOT = "GPT-4o-Mini"
FIRST = "hello from afar [[chunks:6]]"
SECOND = "[[recall]] and [[delay:0.02]]"
ENDLESS = "stop this [[chunks:400]] [[delay:0.02]]"


def peer() -> Any:
    """The client's module, imported only once the redirection is in place."""
    return importlib.import_module("poe_api_wrapper")


async def talk_async(tokens: dict[str, str], note: str) -> dict[str, Any]:
    client = await peer().AsyncPoeApi(tokens=tokens).create()
    first = [chunk async for chunk in client.send_message(BOT, FIRST)]
    chat = {"chatId": first[-1]["chatId"], "chatCode": first[-1]["chatCode"]}
    second = [chunk async for chunk in client.send_message(BOT, SECOND, **chat, file_path=[note])]
    again = [chunk async for chunk in client.retry_message(chat["chatCode"])]
    stopped = []
    async for chunk in client.send_message(BOT, ENDLESS, **chat):
        stopped.append(chunk)
        if len(stopped) == 3:
            await client.cancel_message(chunk)
    settings = await client.get_settings()
    bots = await client.get_available_bots(count=25)
    history = await client.get_chat_history()
    await client.chat_break(BOT, **chat)
    await client.delete_chat(BOT, chatId=chat["chatId"])
    return report(client.formkey, [first, second, again, stopped], settings, bots, history)


def talk_sync(tokens: dict[str, str], note: str) -> dict[str, Any]:
    client = peer().PoeApi(tokens=tokens)
    first = list(client.send_message(BOT, FIRST))
    chat = {"chatId": first[-1]["chatId"], "chatCode": first[-1]["chatCode"]}
    second = list(client.send_message(BOT, SECOND, **chat, file_path=[note]))
    again = list(client.retry_message(chat["chatCode"]))
    stopped = []
    for chunk in client.send_message(BOT, ENDLESS, **chat):
        stopped.append(chunk)
        if len(stopped) == 3:
            client.cancel_message(chunk)
    settings = client.get_settings()
    bots = client.get_available_bots(count=25)
    history = client.get_chat_history()
    client.chat_break(BOT, **chat)
    client.delete_chat(BOT, chatId=chat["chatId"])
    return report(client.formkey, [first, second, again, stopped], settings, bots, history)


def report(formkey: str, turns: list[Any], settings: Any, bots: Any, history: Any) -> dict[str, Any]:
    """`pieces` are the client's own cuts of the growing text; `text` is the whole as it ended."""
    return {
        "formkey": formkey,
        "turns": [
            {
                "pieces": [chunk["response"] for chunk in turn],
                "text": turn[-1]["text"],
                "state": turn[-1]["state"],
                "chat_id": turn[-1]["chatId"],
            }
            for turn in turns
        ],
        "settings": settings,
        "bots": sorted(bots),
        "history": history,
    }


def main() -> None:
    order = json.loads(sys.stdin.readline())
    redirect(order["tls_port"], order["port"])
    if order["api"] == "async":
        outcome = asyncio.run(talk_async(order["tokens"], order["file"]))
    else:
        outcome = talk_sync(order["tokens"], order["file"])
    print("RESULT " + json.dumps(outcome), flush=True)
    # The client's threads and destructors do not end by themselves.
    os._exit(0)


if __name__ == "__main__":
    main()
