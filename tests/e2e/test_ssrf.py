"""No address that a caller or the admin API names leads into the gateway's own network, in any spelling."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import openai
import pytest

from tests.e2e.conftest import Start
from tests.e2e.provider import ProviderSite, asked
from tests.e2e.test_poe_pool import StartEmulator, upsert_all
from tests.support.private_addresses import PRIVATE_URLS, UNREADABLE_URLS

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
)


class Inside(ThreadingHTTPServer):
    """A service of the private network that has a picture; ``asked`` are the paths of its requests."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.asked.append(self.path)
                self.send_response(302 if self.path == "/moved" else 200)
                if self.path == "/moved":
                    self.send_header("Location", "http://169.254.169.254/latest/meta-data")
                self.send_header("Content-Length", str(len(PNG)))
                self.end_headers()
                self.wfile.write(PNG)

            def log_message(self, *args: Any) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.port = self.server_address[1]
        threading.Thread(target=self.serve_forever, daemon=True).start()


@pytest.fixture
def inside() -> Iterator[Inside]:
    server = Inside()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def site() -> Iterator[ProviderSite]:
    site = ProviderSite()
    yield site
    site.end()


def spellings(port: int) -> list[str]:
    """Ways to write this port of this machine."""
    hosts = [
        *("127.0.0.1", "localhost", "LOCALHOST.", "127.1", "2130706433", "0x7f000001", "017700000001", "0.0.0.0"),
        *("[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "127%2e0%2e0%2e1", "１２７.０.０.１", "x.localhost"),
        *("127.0.0.1.", "user@127.0.0.1", "[64:ff9b::7f00:1]", "[2002:7f00:1::]"),
    ]
    return [f"http://{host}:{port}/x.png" for host in hosts]


def with_image(url: str) -> dict[str, Any]:
    parts = [{"type": "text", "text": "what is this?"}, {"type": "image_url", "image_url": {"url": url}}]
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": parts}]}


def refusals(ask: Callable[[str], object], urls: list[str]) -> dict[str, str]:
    """Address -> message, of those that were refused with a 400."""
    found = {}
    for url in urls:
        try:
            ask(url)
        except openai.BadRequestError as error:
            found[url] = error.message
    return found


def test_images_are_not_fetched_from_inside(gateway: Start, emulator: StartEmulator, inside: Inside) -> None:
    site = emulator("--accounts", "1")
    poe = {"POE_BASE_URL": site.base_url, "POE_WS_BASE_URL": site.ws_base_url}
    server = gateway(OUTBOUND_ALLOW=None, **poe)
    upsert_all(server, site)
    sendable = [url for url in PRIVATE_URLS + UNREADABLE_URLS if url.isprintable() and len(url) < 2000]
    urls = [*sendable, *spellings(inside.port), f"{site.base_url}/x.png"]  # the upstream's own door is no way either
    with server.client() as client:
        refused = refusals(lambda url: client.chat.completions.create(**with_image(url)), urls)
    assert [url for url in urls if url not in refused] == []
    assert inside.asked == [] and "meta-data" not in str(refused.values())
    assert "HTTP" not in str(refused.values()), "none of them has answered"
    assert all(account["status"] == "active" for account in server.accounts()), "no account is to blame"


def test_what_the_operator_allows_is_fetched_and_its_redirects_are_judged(
    gateway: Start, emulator: StartEmulator, inside: Inside
) -> None:
    site = emulator("--accounts", "1")
    poe = {"POE_BASE_URL": site.base_url, "POE_WS_BASE_URL": site.ws_base_url}
    server = gateway(OUTBOUND_ALLOW=f"127.0.0.1:{inside.port}", **poe)
    upsert_all(server, site)
    with server.client() as client:
        answer = client.chat.completions.create(**with_image(f"http://127.0.0.1:{inside.port}/x.png"))
        assert answer.choices[0].message.content
        with pytest.raises(openai.BadRequestError):
            client.chat.completions.create(**with_image(f"http://127.0.0.1:{inside.port}/moved"))
    assert inside.asked == ["/x.png", "/moved"]


def test_base_urls_set_at_run_time_do_not_lead_inside(gateway: Start, site: ProviderSite) -> None:
    server = gateway(OUTBOUND_ALLOW=None)
    urls = [*PRIVATE_URLS, *filter(None, UNREADABLE_URLS), *spellings(site.port)]
    with server.admin() as admin:
        for url in urls:
            if any("\ud800" <= each <= "\udfff" for each in url):
                continue  # no JSON can carry it
            body = {"provider": "openai_api", "name": "x", "credentials": {"base_url": url, "api_key": "sk-canary-1"}}
            answer = admin.post("/admin/accounts/upsert", json=body)
            assert answer.status_code in (400, 422), (url, answer.text)
            assert answer.json()["error"]["param"] == "base_url", (url, answer.text)
    assert server.accounts() == [] and site.calls == []


def test_an_account_of_before_does_not_lead_inside_any_more(gateway: Start, site: ProviderSite) -> None:
    """What is stored is judged again when it is connected to, whatever was allowed when it was handed in."""
    server = gateway(OUTBOUND_ALLOW="127.0.0.1")
    site.enroll(server, 1)
    with server.client() as client:
        assert client.chat.completions.create(**asked("hi")).choices[0].message.content == "echo: hi"
    server.stop()
    before = len(site.calls)
    server = gateway(OUTBOUND_ALLOW=None)
    codes: list[str | None] = []
    with server.client() as client:
        while "upstream_unreachable" not in codes:  # it may not have a slot of the account yet
            with pytest.raises(openai.InternalServerError) as caught:
                client.chat.completions.create(**asked("hi again"))
            codes.append(caught.value.code)
            assert len(codes) < 40, codes
            time.sleep(0.1)
    assert len(site.calls) == before
    told = [line for line in server.log_lines() if "OUTBOUND_ALLOW" in str(line)]
    assert told and f"127.0.0.1:{site.port}" in str(told)
