"""Pictures by address, from a server that does its worst."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from poe_gateway.outbound.allowed import read_allowed
from poe_gateway.outbound.fetch import ImageFetcher, ImageRefused
from poe_gateway.outbound.guard import Guard
from poe_gateway.upstreams.poe_web.attachments import AttachmentError, File
from poe_gateway.upstreams.poe_web.remote_images import fetching
from tests.support.private_addresses import PRIVATE_URLS, UNREADABLE_URLS
from tests.unit.test_outbound_guard import Names

PNG = b"\x89PNG\r\n\x1a\n" + b"p" * 3000
PICTURES = {
    "image/png": PNG,
    "image/jpeg": b"\xff\xd8\xff\xe0" + b"j" * 50,
    "image/gif": b"GIF89a" + b"g" * 50,
    "image/webp": b"RIFF\x00\x00\x00\x00WEBP" + b"w" * 50,
}
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Site:
    """Answers by path; ``seen`` are the requests' headers."""

    def __init__(self) -> None:
        self.pages: dict[str, Answer] = {}
        self.seen: list[dict[str, str]] = []
        self.port = 0
        self.open = 0
        self.most = 0

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        self.seen.append(dict(request.headers))
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            return await self.pages[request.path](request)  # type: ignore[arg-type]
        finally:
            self.open -= 1

    def url(self, path: str, host: str = "a.test") -> str:
        return f"http://{host}:{self.port}{path}"

    def put(self, path: str, body: bytes, status: int = 200, **headers: str) -> str:
        async def answer(request: web.Request) -> web.StreamResponse:
            return web.Response(status=status, body=body, headers={k.replace("_", "-"): v for k, v in headers.items()})

        self.pages[path] = answer
        return self.url(path)

    def moved(self, path: str, to: str, status: int = 302) -> str:
        return self.put(path, b"", status, Location=to)


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    site = Site()
    runner = web.ServerRunner(web.Server(site), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    site.port = runner.addresses[0][1]
    yield site
    await runner.cleanup()


@pytest.fixture
async def images(site: Site) -> AsyncIterator[ImageFetcher]:
    async with fetcher(site) as images:
        yield images


class fetcher:
    """A fetcher for which ``a.test`` and ``b.test`` are hosts of the Internet, and this site is both of them."""

    def __init__(self, site: Site, **options: Any) -> None:
        names = Names(a_test=[["127.0.0.1"]], b_test=[["127.0.0.1"]], inner_test=[["127.0.0.1"]])
        guard = Guard(read_allowed([f"a.test:{site.port}", f"b.test:{site.port}"]))
        self.images = ImageFetcher(guard, resolver=names, **{"seconds": 5.0, **options})

    async def __aenter__(self) -> ImageFetcher:
        return self.images

    async def __aexit__(self, *error: object) -> None:
        await self.images.close()


async def refusal(images: ImageFetcher, url: str) -> str:
    with pytest.raises(ImageRefused) as refused:
        await images.fetch(url)
    assert url not in refused.value.public and "127.0.0.1" not in refused.value.public
    return refused.value.public


@pytest.mark.parametrize("kind", list(PICTURES))
async def test_pictures_are_known_by_their_bytes(site: Site, images: ImageFetcher, kind: str) -> None:
    url = site.put("/x", PICTURES[kind], Content_Type="text/html")
    assert await images.fetch(url) == (kind, PICTURES[kind])


async def test_nothing_of_the_gateway_goes_along(site: Site, images: ImageFetcher) -> None:
    site.put("/cookie", b"", 302, Location="/x", Set_Cookie="a=b; Path=/")
    site.put("/x", PNG)
    await images.fetch(site.url("/cookie"))
    for headers in site.seen:
        assert not {"Cookie", "Authorization", "Referer"} & headers.keys()
        assert headers["Accept-Encoding"] == "identity"
    assert len(site.seen) == 2


@pytest.mark.parametrize("url", PRIVATE_URLS + UNREADABLE_URLS, ids=ascii)
async def test_no_spelling_of_a_private_address_is_fetched(images: ImageFetcher, url: str) -> None:
    with pytest.raises(ImageRefused):
        await images.fetch(url)


async def test_a_name_that_leads_inside_is_told_like_one_that_leads_nowhere(site: Site, images: ImageFetcher) -> None:
    site.put("/x", PNG)
    inside = await refusal(images, "http://inner.test/x")
    assert inside == await refusal(images, "http://nowhere.test/x")
    assert site.seen == []


async def test_redirects_are_followed_and_each_is_judged(site: Site, images: ImageFetcher) -> None:
    site.put("/x", PNG)
    site.moved("/relative", "x", 301)
    site.moved("/other", site.url("/relative", "b.test"), 307)
    assert await images.fetch(site.moved("/first", "/other", 308)) == ("image/png", PNG)
    site.seen.clear()
    for url in (*PRIVATE_URLS, site.url("/x", "127.0.0.1"), "http://inner.test/x", "file:///etc/passwd", "http://[x"):
        with pytest.raises(ImageRefused):
            await images.fetch(site.moved("/trap", url))
    assert len(site.seen) == len(PRIVATE_URLS) + 4, "nothing but the first answers was asked for"


async def test_redirects_end(site: Site, images: ImageFetcher) -> None:
    assert "more than 3 times" in await refusal(images, site.moved("/round", "/round"))
    assert len(site.seen) == 4
    assert "HTTP 302" in await refusal(images, site.put("/nowhere", b"", 302))


async def test_https_does_not_lead_to_http(site: Site, images: ImageFetcher) -> None:
    secure = images._judged(f"https://a.test:{site.port}/")
    with pytest.raises(ImageRefused, match="https to http"):
        images._judged(site.url("/x"), secure)
    images._judged(f"https://b.test:{site.port}/", secure)


@pytest.mark.parametrize("port", [22, 25, 6379, 27017, 9200, 65535])
async def test_ports_of_other_services_are_refused(images: ImageFetcher, port: int) -> None:
    assert "port" in await refusal(images, f"http://8.8.8.8:{port}/x.png")


@pytest.mark.parametrize(
    ("body", "status", "headers", "told"),
    [
        (b"", 200, {}, "must be PNG"),
        (b"<html>", 200, {"Content_Type": "image/png"}, "must be PNG"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 200, {"Content_Type": "image/svg+xml"}, "must be PNG"),
        (PNG, 404, {}, "HTTP 404"),
        (PNG, 206, {}, "HTTP 206"),
        (b"", 304, {}, "HTTP 304"),
        (gzip.compress(PNG), 200, {"Content_Encoding": "gzip"}, "compressed"),
        (PNG + b"x" * 5000, 200, {}, "larger than 4000 bytes"),
    ],
    ids=["empty", "html", "svg", "not found", "part", "not modified", "gzip", "large"],
)
async def test_what_is_no_picture_is_refused(
    site: Site, body: bytes, status: int, headers: dict[str, str], told: str
) -> None:
    async with fetcher(site, limit=4000) as images:
        assert told in await refusal(images, site.put("/x", body, status, **headers))


@pytest.mark.parametrize("begin", [PNG, b"no picture at all"], ids=["picture", "other"])
async def test_a_body_without_end_is_cut(site: Site, begin: bytes) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(begin)
        for _ in range(10_000):
            await response.write(b"x" * 4096)
        return response

    site.pages["/x"] = endless
    async with fetcher(site, limit=100_000) as images:
        told = await refusal(images, site.url("/x"))
    assert told == (
        "The image is larger than 100000 bytes." if begin == PNG else "The image must be PNG, JPEG, GIF or WebP."
    )


async def test_time_is_bounded(site: Site) -> None:
    async def slow(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(60)
        return web.Response()

    site.pages["/x"] = slow
    async with fetcher(site, seconds=0.5) as images:
        answers = await asyncio.gather(*(images.fetch(site.url("/x")) for _ in range(6)), return_exceptions=True)
    assert {str(each) for each in answers} == {"The image did not arrive in time."}


async def test_the_number_at_once_is_bounded(site: Site) -> None:
    gate = asyncio.Event()

    async def waiting(request: web.Request) -> web.StreamResponse:
        await gate.wait()
        return web.Response(body=PNG)

    site.pages["/x"] = waiting
    async with fetcher(site, seconds=60, concurrency=2) as images:
        fetching = [asyncio.create_task(images.fetch(site.url("/x"))) for _ in range(6)]
        while site.open < 2:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)  # time for a third, were it let
        gate.set()
        answers = await asyncio.gather(*fetching)
    assert (len(answers), site.most) == (6, 2)


async def test_a_connection_that_breaks_is_told_as_such(site: Site, images: ImageFetcher) -> None:
    async def breaking(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "5000"})
        await response.prepare(request)
        await response.write(PNG)
        assert request.transport is not None
        request.transport.abort()
        return response

    site.pages["/x"] = breaking
    assert await refusal(images, site.url("/x")) == "The image's address cannot be reached."


async def test_the_web_chat_gets_files(site: Site, images: ImageFetcher) -> None:
    fetch = fetching(images)
    assert await fetch(site.put("/x", PNG)) == File("image.png", "image/png", PNG)
    with pytest.raises(AttachmentError, match="private or special"):
        await fetch("http://127.0.0.1/x.png")
