"""The hot routes in ``/openapi.json``: they are raw ASGI, so FastAPI knows nothing of them.

Paths, shapes of errors and content types are those of the dialects themselves; what is written down here are the bodies
and the headers. Tests hold these against what the routes really take and give.
"""

from poe_gateway.api.v1.chat_docs.document import describe

__all__ = ["describe"]
