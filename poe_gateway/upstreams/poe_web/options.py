"""How patient and how large the adapter is: one frozen value. Times in seconds, sizes in bytes."""

from __future__ import annotations

import msgspec


class PoeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Time-outs and bounds of ``PoeWeb``."""

    connect_timeout: float = 15.0
    request_timeout: float = 30.0
    """One HTTP request, from sending to the last byte."""
    upload_timeout: float = 180.0
    challenge_settle: float = 5.0
    """So long after a challenge the account's next message may go out, if the pool chooses the account even then: it
    holds the challenge against the message that met it. Long enough for messages that were on their way."""
    challenge_rest: float = 120.0
    """The same for balances, lists and opening ahead of need, which the pool asks for without choosing: longer than it
    ever leaves open who was at fault."""
    turn_wait: float = 1.0
    """How long a request waits for the answer to the account's request before it."""
    socket_open_timeout: float = 15.0
    socket_ping: float = 20.0
    """Protocol ping; a missing pong after half of it ends the socket."""
    socket_text_ping: float = 25.0
    socket_idle: float = 600.0
    """A socket without messages in flight is closed after this long."""
    reconnect_delay: float = 0.25
    """Wait before the second reconnect; doubles up to ``reconnect_delay_max``."""
    reconnect_delay_max: float = 5.0
    resume_attempts: int = 2
    """Reconnects of the same channel before a new one is asked for."""
    silence: float = 15.0
    """Without an event for this long the chat is re-read."""
    first_event: float = 300.0
    """Without a first sign of the answer for this long it is given up: thinking models take minutes."""
    stall: float = 120.0
    """The same, once the answer has begun."""
    answer_timeout: float = 1800.0
    """The whole answer."""
    cost_wait: float = 1.0
    """How long after the end of the answer its price is waited for."""
    job_grace: float = 1.0
    """After the job says that it is done, how long the text may lag behind before the chat is re-read."""
    cancel_timeout: float = 5.0
    orphan_timeout: float = 60.0
    """How long the answer to a send is waited for after the caller has left, to cancel what it started."""
    early_chats: int = 32
    early_events: int = 128
    """Events kept for a chat that nobody waits for yet."""
    early_ttl: float = 60.0
    deletions: int = 256
    """Ephemeral chats waiting for deletion; more are left alone."""
    page_bytes: int = 16 * 1024 * 1024
    answer_bytes: int = 16 * 1024 * 1024
    frame_bytes: int = 8 * 1024 * 1024
    image_bytes: int = 20 * 1024 * 1024
    images: int = 16
    inline_page_bytes: int = 64 * 1024
    """Pages up to this size are parsed in place; larger ones outside of this process."""
    sandboxes: int = 2
    sandbox_timeout: float = 15.0
    sandbox_memory: int = 64 * 1024 * 1024
    """Memory of the JavaScript engine."""
    model_pages: int = 200
