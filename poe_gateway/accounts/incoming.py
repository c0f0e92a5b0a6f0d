"""What may be handed in at run time, and what only the routing file may say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from poe_gateway.accounts.references import ENV, FILE, has_reference
from poe_gateway.errors import InvalidRequest, Unprocessable
from poe_gateway.outbound.destinations import AddressRefused
from poe_gateway.outbound.guard import Guard

MANAGED = "backend:"
"""Names that begin so are for accounts that the gateway keeps by itself."""
MARK = "managed"
"""In the details of such an account: what it was made of, as a digest."""
_ADDRESS = "_url"
"""End of the names of credential fields that say where requests go."""


class Managed(msgspec.Struct, frozen=True, kw_only=True):
    """An account of the routing file. ``document`` is sealed in place of the credentials: it names the key."""

    document: Mapping[str, Any]
    mark: str


async def check_incoming(guard: Guard | None, name: str, credentials: Mapping[str, Any]) -> None:
    """Raises InvalidRequest for what is the routing file's, Unprocessable for an address inside our own network.

    A key that is named would be sent wherever the document says: whoever may hand in accounts could read every file.
    """
    if name.lower().startswith(MANAGED):
        message = f"Names that begin with '{MANAGED}' are for accounts of the routing file."
        raise InvalidRequest(message, param="name", code="name_reserved")
    if has_reference(credentials):
        raise InvalidRequest(
            f"'{ENV}' and '{FILE}' are for backends of the routing file; hand in the key itself.",
            param=ENV if ENV in credentials else FILE,
            code="invalid_credentials",
        )
    if guard is None:
        return
    for field, value in credentials.items():
        if isinstance(value, str) and value.strip() and field.endswith(_ADDRESS):
            try:
                await guard.check(value.strip())
            except AddressRefused as refused:
                raise Unprocessable(
                    f"{field}: {refused.public} Hosts of your own network are named in OUTBOUND_ALLOW.",
                    param=field,
                    code="address_not_allowed",
                ) from None
