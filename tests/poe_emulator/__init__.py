"""A strict emulator of the poe.com web chat protocol, for the tests of the adapter that speaks it.

It refuses whatever the site is known (or likely) to refuse and writes down why; see `PoeEmulator`.
"""

from .accounts import Account, AccountStats
from .behaviour import Behaviour, Fault
from .chats import Bot, Chat, Message
from .server import PoeEmulator
from .site import Rejection, SiteOptions, SiteStats

__all__ = [
    "Account",
    "AccountStats",
    "Behaviour",
    "Bot",
    "Chat",
    "Fault",
    "Message",
    "PoeEmulator",
    "Rejection",
    "SiteOptions",
    "SiteStats",
]
