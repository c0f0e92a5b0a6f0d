"""Who calls: the service key of a request, for raw and FastAPI routes alike; and the operator's key.

Wrong keys are counted per address. An address that sent too many is refused without a look at its key, unless the key
is one that this process knows to be right: one bad client must not lock out everybody behind the same address.
"""

from __future__ import annotations

from fastapi import Request

from poe_gateway.auth.addresses import within
from poe_gateway.auth.keyring import KeyRing
from poe_gateway.auth.keys import Principal, presented_key
from poe_gateway.errors import AuthenticationFailed, Forbidden, RateLimitExceeded, StoreUnavailable, Unavailable


async def caller(
    keyring: KeyRing, authorization: str | None, x_api_key: str | None, address: str | None = None
) -> Principal:
    """The principal of a service key.

    Raises AuthenticationFailed, Forbidden (the organisation is off, or the key may not be used from this address),
    RateLimitExceeded (too many wrong keys); with the database away, Unavailable.

    Without any key: the caller at this address, where the routing file lets such callers in.
    Keys that this process knows never wait. An unknown key is refused only after the store was asked; while the
    store is away nobody is told that a key is wrong.
    """
    key = presented_key(authorization, x_api_key)
    if key is None:
        anonymous = None if authorization or x_api_key else keyring.public.at(address)
        if anonymous is not None:
            return anonymous
        raise AuthenticationFailed(
            "Missing or malformed API key: send 'Authorization: Bearer <key>' or 'X-API-Key: <key>'."
        )
    principal = keyring.known(key) or await _recognised(keyring, key, address)
    if principal.addresses and not within(address, principal.addresses):
        raise Forbidden("This API key may not be used from this address.", code="address_not_allowed")
    return principal


async def caller_of(request: Request, keyring: KeyRing) -> Principal:
    """The same, of a request to a FastAPI route."""
    headers, client = request.headers, request.client
    address = client.host if client is not None else None
    return await caller(keyring, headers.get("authorization"), headers.get("x-api-key"), address)


async def _recognised(keyring: KeyRing, key: str, address: str | None) -> Principal:
    """The caller of a key that memory does not know."""
    _patient(keyring.throttle.wait(address))
    try:
        principal = await keyring.recognise(key)
    except StoreUnavailable:
        raise Unavailable(
            "The key cannot be checked at the moment.", code="database_unavailable", retry_after=5
        ) from None
    if principal is None:
        _patient(keyring.throttle.failed(address))
        raise AuthenticationFailed("Incorrect API key provided.")
    return principal


def operator(keyring: KeyRing, authorization: str | None, x_api_key: str | None, address: str | None = None) -> None:
    """Let the operator pass and nobody else; service keys are strangers. Raises as ``caller`` does."""
    key = presented_key(authorization, x_api_key)
    if key is None:
        raise AuthenticationFailed(
            "Missing or malformed admin key: send 'Authorization: Bearer <key>' or 'X-API-Key: <key>'."
        )
    if not keyring.is_admin(key):
        _patient(keyring.throttle.failed(address))
        raise AuthenticationFailed("Incorrect admin key provided.")


def _patient(wait: float) -> None:
    if wait > 0:
        raise RateLimitExceeded(
            "Too many wrong API keys came from this address.", code="too_many_failures", retry_after=wait
        )
