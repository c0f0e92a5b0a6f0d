"""The doors: the ASGI application, and the raw routes that it answers before FastAPI."""

from __future__ import annotations

from collections.abc import Callable

from poe_gateway.api.admin import router as admin_router
from poe_gateway.api.application import Lifespan, create_app
from poe_gateway.api.asgi import Front
from poe_gateway.api.idempotent import Idempotent
from poe_gateway.api.second_door import TwoDoors
from poe_gateway.api.traffic import TrafficNotes
from poe_gateway.api.v1.hot import HotParts, hot_routes
from poe_gateway.api.v1.pictures import Pictures
from poe_gateway.bootstrap.books import Books
from poe_gateway.bootstrap.walk import Walk
from poe_gateway.clock import Clock, Ids
from poe_gateway.outbound.fetch import ImageFetcher
from poe_gateway.settings import Settings
from poe_gateway.telemetry.hub import Telemetry


def front(lifespan: Lifespan, settings: Settings) -> Front | TwoDoors:
    """The ASGI application: raw routes before FastAPI. The raw routes come with the lifespan (``Front.serve``)."""
    application = create_app(lifespan, [admin_router()], docs=settings.serve.docs_enabled)
    one = Front(application, ids=Ids())
    return TwoDoors(one, Ids()) if settings.serve.admin_port else one


def raw_routes(
    settings: Settings,
    *,
    walk: Walk,
    books: Books,
    pictures: ImageFetcher,
    clock: Clock,
    ids: Ids,
    telemetry: Telemetry,
    trouble: Callable[[str], None],
) -> dict[str, Idempotent]:
    """By path, with and without the ``/v1`` prefix."""
    traffic = None
    if settings.audit.traffic_days:
        traffic = TrafficNotes(
            shape=books.shape, note=books.ledger.note, seal=books.traffic.seal, clock=clock, trouble=trouble
        )
    return hot_routes(
        HotParts(
            router=walk.router,
            keyring=books.keyring,
            telemetry=telemetry,
            clock=clock,
            ids=ids,
            book=books.repetitions,
            shelf=walk.shelf,
            pictures=Pictures(pictures),
            traffic=traffic,
            max_body=settings.serve.max_body_bytes,
            notice_after=settings.pool.queue_notice_seconds,
            streams=settings.idempotency.streams,
            patience=settings.pool.acquire_timeout_seconds + settings.serve.request_timeout_seconds,
        )
    )
