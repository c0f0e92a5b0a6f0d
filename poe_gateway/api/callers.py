"""Who calls: the service key of a request, for raw and FastAPI routes alike."""

from __future__ import annotations

from poe_gateway.auth.keyring import KeyRing
from poe_gateway.auth.keys import Principal, presented_key
from poe_gateway.errors import AuthenticationFailed, Unavailable
from poe_gateway.pool.store import StoreUnavailable


async def caller(keyring: KeyRing, authorization: str | None, x_api_key: str | None) -> Principal:
    """The principal of a service key. Raises AuthenticationFailed; with the database away, Unavailable.

    Keys that this process knows never wait. An unknown key is refused only after the store was asked; while the
    store is away nobody is told that a key is wrong.
    """
    key = presented_key(authorization, x_api_key)
    if key is None:
        raise AuthenticationFailed(
            "Missing or malformed API key: send 'Authorization: Bearer <key>' or 'X-API-Key: <key>'."
        )
    principal = keyring.known(key)
    if principal is not None:
        return principal
    try:
        principal = await keyring.recognise(key)
    except StoreUnavailable:
        raise Unavailable(
            "The key cannot be checked at the moment.", code="database_unavailable", retry_after=5
        ) from None
    if principal is None:
        raise AuthenticationFailed("Incorrect API key provided.")
    return principal
