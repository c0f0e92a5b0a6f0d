"""What routes ask for: the rooms behind the door, and proof that the operator is asking."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Annotated, Any, Protocol, cast

from fastapi import Depends, Request, Response, Security
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from fastapi.security import APIKeyHeader, HTTPBearer
from pydantic import BaseModel
from starlette.requests import ClientDisconnect

from poe_gateway.accounts.books import AccountBooks
from poe_gateway.accounts.care import AccountCare
from poe_gateway.accounts.desk import AccountDesk
from poe_gateway.api.asgi import check_encoding
from poe_gateway.api.callers import operator
from poe_gateway.auth.keyring import KeyRing
from poe_gateway.clock import Clock
from poe_gateway.errors import InvalidRequest, RequestTooLarge, Unavailable
from poe_gateway.metering.changes import Changes
from poe_gateway.metering.pricelist import PriceList
from poe_gateway.metering.spool import SpoolFailed
from poe_gateway.pool.broker import Broker
from poe_gateway.pool.store import StoreUnavailable
from poe_gateway.routing.catalog import Catalog
from poe_gateway.upstreams.base import Upstream


class Gateway(Protocol):
    """The rooms of this process, as ``app.state.gateway`` holds them."""

    @property
    def desk(self) -> AccountDesk: ...
    @property
    def care(self) -> AccountCare: ...
    @property
    def keyring(self) -> KeyRing: ...
    @property
    def broker(self) -> Broker: ...
    @property
    def catalog(self) -> Catalog: ...
    @property
    def upstreams(self) -> Mapping[str, Upstream]: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def changes(self) -> Changes: ...
    @property
    def pricelist(self) -> PriceList: ...
    @property
    def books(self) -> AccountBooks: ...


def gateway(request: Request) -> Gateway:
    """The rooms. Raises Unavailable while the process starts."""
    rooms = getattr(request.app.state, "gateway", None)
    if rooms is None:
        raise Unavailable("The gateway is starting.", retry_after=1)
    return cast(Gateway, rooms)


Rooms = Annotated[Gateway, Depends(gateway)]

_BEARER = HTTPBearer(auto_error=False, scheme_name="AdminBearer", description="`ADMIN_API_KEY`")
_HEADER = APIKeyHeader(
    name="X-API-Key", auto_error=False, scheme_name="AdminApiKeyHeader", description="`ADMIN_API_KEY`"
)


async def require_admin(
    request: Request,
    rooms: Rooms,
    bearer: Annotated[Any, Security(_BEARER)] = None,
    header: Annotated[Any, Security(_HEADER)] = None,
) -> None:
    """Let the operator pass and nobody else; service keys are strangers here. Raises AuthenticationFailed.

    ``bearer`` and ``header`` are only there for the documentation: the headers are read in one place.
    """
    _admit(request, rooms)


def _admit(request: Request, rooms: Gateway) -> None:
    headers, client = request.headers, request.client
    address = client.host if client is not None else None
    operator(rooms.keyring, headers.get("authorization"), headers.get("x-api-key"), address)


FORM = "form:"
"""Prefix of the tags of alternative forms, so that they can be left out where a field is named."""


_LARGEST = 1_048_576
"""Bytes of an operator's request; accounts are handed in one at a time."""


class AdminRoute(APIRoute):
    """Answers of the operator's routes are kept nowhere on the way; a database that is away is told as such.

    The key is checked before anything is read: of strangers no body is taken, and none is told what is wrong with it.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            _admit(request, gateway(request))
            body = await read_body(request, _LARGEST)

            async def replay() -> dict[str, Any]:
                return {"type": "http.request", "body": body, "more_body": False}

            try:
                response = await handler(Request(request.scope, replay))
            except RequestValidationError as error:
                raise RequestValidationError([_untagged(each) for each in error.errors()]) from None
            except SpoolFailed:
                raise Unavailable(
                    "The change could not be recorded.", code="audit_unavailable", retry_after=5
                ) from None
            except StoreUnavailable:
                raise Unavailable(
                    "The database is not reachable.", code="database_unavailable", retry_after=5
                ) from None
            response.headers["cache-control"] = "no-store"
            return response

        return handle


async def read_body(request: Request, limit: int) -> bytes:
    """The body. Raises RequestTooLarge before more than ``limit`` bytes are held, and InvalidRequest."""
    check_encoding(request.headers.get("content-encoding"))
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                raise RequestTooLarge(f"The body is larger than {limit} bytes.", code="body_too_large")
    except ClientDisconnect:
        raise InvalidRequest("The body ended before it was complete.") from None  # for the log: nobody hears it
    return bytes(body)


def _untagged(error: dict[str, Any]) -> dict[str, Any]:
    """The place of an error as the operator wrote it; what he wrote there is dropped, for it may be a secret."""
    place = tuple(part for part in error["loc"] if not str(part).startswith(FORM))
    return {"type": error["type"], "loc": place, "msg": error["msg"]}


class ErrorDetail(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None
    status: int


class ErrorBody(BaseModel):
    """Every error has this shape."""

    error: ErrorDetail


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Documentation of error answers."""
    return {status: {"model": ErrorBody} for status in statuses}
