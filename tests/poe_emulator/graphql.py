"""The persisted queries beside sending: one function each, from variables to the ``data`` of the answer.

An operation that does not like its variables raises `Unservable`; the client then gets the site's
all-purpose envelope: HTTP 200, data null, "Server Error".
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Callable

from . import checks
from .accounts import Account
from .calls import Call, Data, Unservable, chat_named, chat_of_message, need, paged, use_nonce
from .chats import Message, global_id
from .pushes import event


def subscribe(call: Call) -> Data:
    if why := checks.subscriptions(call.variables, call.generation):
        raise Unservable(why)
    entries = call.variables["subscriptions"]
    call.channel.subscribed = frozenset(entry["subscriptionName"] for entry in entries)
    return {"autoSubscribe": {"viewer": {"id": global_id("Viewer", call.account.uid)}}}


# ------------------------------------------------------------------ the viewer


def settings_page(call: Call) -> Data:
    account = call.account
    if not account.alive:
        return {"viewer": None}
    account.renew(call.site.now())
    expires_s = account.next_grant_at + 20 * 86_400
    return {
        "viewer": {
            "id": global_id("Viewer", account.uid),
            "uid": account.uid,
            "poeUser": {"id": global_id("PoeUser", account.uid), "handle": account.email.split("@")[0]},
            "messagePointInfo": _points(account),
            "subscription": {
                "isActive": account.plan is not None,
                "planType": "monthly" if account.plan else None,
                "expiresTime": int(expires_s * 1000) if account.plan else None,
                "subscriptionProduct": {"displayName": account.plan} if account.plan else None,
            },
        }
    }


def _points(account: Account) -> Data:
    """messagePointInfo in the spelling(s) of this account; old times are ms, new ones microseconds."""
    points: Data = {"totalMessagePointAllotment": account.allotment}
    if account.points_spelling in ("old", "both"):
        points["messagePointBalance"] = account.points
        points["messagePointResetTime"] = int(account.next_grant_at * 1e3)
    if account.points_spelling in ("new", "both"):
        points["subscriptionPointBalance"] = account.balance
        points["addonPointBalance"] = account.addon
        points["computePointNextGrantTime"] = int(account.next_grant_at * 1e6)
    return points


def points_history(call: Call) -> Data:
    charges = call.account.charges[::-1]
    edges, info = paged(charges, call.variables.get("limit", 20), call.variables.get("cursor"))
    return {"viewer": {"pointsHistoryConnection": {"edges": edges, "pageInfo": info}}}


# ------------------------------------------------------------------ bots


def bot_page(call: Call) -> Data:
    if set(call.variables) != {"botHandle"} or not isinstance(call.variables["botHandle"], str):
        raise Unservable("variables are not {botHandle}")
    bot = call.site.bot(call.variables["botHandle"])
    if bot is None:
        raise Unservable(f"no bot {call.variables['botHandle']!r}")
    if call.generation == "legacy":
        return {"bot": bot.node()}
    viewer = {
        "submitMessageParamsAsDict": False,
        "shouldUseFinishUploadEndpoint": True,
        "shouldUsePresignedUrl": False,
        "fileUploadSizeLimits": '{"default": 52428800}',
    }
    return {"bot": bot.node(), "viewer": viewer}


def available_bots(call: Call) -> Data:
    variables = call.variables
    if call.generation == "legacy":
        if not set(variables) <= {"cursor"}:
            raise Unservable("variables are not {} or {cursor}")
        limit = 20
    else:
        fixed = {
            "botSelectorFilter": "all",
            "filterCanvasOnlyBots": False,
            "includeHomePageBotSelectorFragment": False,
        }
        if set(variables) != {*fixed, "cursor", "limit"} or fixed.items() - variables.items():
            raise Unservable("variables of the bot selector are wrong")
        limit = variables["limit"]
    edges, info = paged([bot.node() for bot in call.site.bots], limit, variables.get("cursor"))
    return {"viewer": {"availableBotsConnection": {"edges": edges, "pageInfo": info}}}


def explore_index(call: Call) -> Data:
    categories = ("Official", "Popular", "Community")
    return {"exploreBotsCategoryObjects": [{"categoryName": name} for name in categories]}


def explore_list(call: Call) -> Data:
    need(call, "categoryName", "count", "cursor")
    community = call.variables["categoryName"] == "Community"
    bots = [bot.node() for bot in call.site.bots if bot.official is not community]
    edges, info = paged(bots, call.variables["count"], call.variables["cursor"])
    return {"exploreBotsConnection": {"edges": edges, "pageInfo": info}}


def search(call: Call) -> Data:
    need(call, "query", "entityType", "count", "cursor")
    wanted = str(call.variables["query"]).lower()
    bots = [bot.node() for bot in call.site.bots if wanted in bot.handle.lower()]
    found = bots if call.variables["entityType"] == "bot" else []
    edges, info = paged(found, call.variables["count"], call.variables["cursor"])
    return {"searchEntityConnection": {"edges": edges, "pageInfo": info}}


# ------------------------------------------------------------------ chats


def chat_history(call: Call) -> Data:
    need(call, "count", "cursor")
    chats = [chat.summary() for chat in reversed(call.account.chats.values())]
    edges, info = paged(chats, call.variables["count"], call.variables["cursor"])
    return {"chats": {"edges": edges, "pageInfo": info}}


def chat_history_of_bot(call: Call) -> Data:
    need(call, "count", "cursor", "handle")
    bot = call.site.bot(str(call.variables["handle"]))
    if bot is None:
        raise Unservable(f"no bot {call.variables['handle']!r}")
    chats = [chat.summary() for chat in reversed(call.account.chats.values()) if chat.bot is bot]
    edges, info = paged(chats, call.variables["count"], call.variables["cursor"])
    return {"filteredChats": {"edges": edges, "pageInfo": info}}


def chat_page(call: Call) -> Data:
    need(call, "chatCode")
    for chat in call.account.chats.values():
        if chat.code == call.variables["chatCode"]:
            messages = chat.page(call.site.options.chat_page)
            return {"chatOfCode": {**chat.summary(), "messagesConnection": messages}}
    return {"chatOfCode": None}


def chat_messages(call: Call) -> Data:
    need(call, "count", "cursor", "id")
    chat = None
    with contextlib.suppress(ValueError):
        kind, _, number = base64.b64decode(str(call.variables["id"])).decode().partition(":")
        chat = call.account.chats.get(int(number)) if kind == "Chat" else None
    if chat is None:
        return {"node": None}
    page = chat.page(call.variables["count"], call.variables["cursor"])
    return {"node": {"id": chat.node_id, "messagesConnection": page}}


def delete_chat(call: Call) -> Data:
    need(call, "chatId")
    chat = chat_named(call)
    for answer in list(call.account.running.values()):
        if answer.chat is chat:
            answer.cancel()
    del call.account.chats[chat.chat_id]
    call.account.stats.chats_deleted += 1
    gone = event("chatDeletedV3", chat.chat_id, {"chatId": chat.chat_id})
    call.account.push([("chatDeletedV3", gone)])
    return {"chatDelete": {"chatId": chat.chat_id, "status": "success"}}


def delete_messages(call: Call) -> Data:
    need(call, "messageIds")
    doomed = call.variables["messageIds"]
    for chat in call.account.chats.values():
        chat.messages = [message for message in chat.messages if message.message_id not in doomed]
    return {"messagesDelete": {"messageIds": doomed}}


def delete_everything(call: Call) -> Data:
    for chat_id in list(call.account.chats):
        call.variables = {"chatId": chat_id}
        delete_chat(call)
    return {"deleteUserMessages": {"viewer": {"id": global_id("Viewer", call.account.uid)}}}


def chat_break(call: Call) -> Data:
    need(call, "chatId", "clientNonce")
    chat = chat_named(call)
    use_nonce(call)
    message = Message(author="chat_break", text="", client_nonce=call.variables["clientNonce"])
    chat.messages.append(message)
    call.account.stats.breaks += 1
    call.account.push([("messageAdded", event("messageAdded", chat.chat_id, message.node()))])
    return {"messageBreakEdgeCreate": {"status": "success", "message": {"node": message.node()}}}


def cancel_message(call: Call) -> Data:
    need(call, "messageId", "textLength")
    message_id = call.variables["messageId"]
    if answer := call.account.running.get(message_id):
        answer.cancel()
        return {"messageCancel": {"messageId": message_id}}
    chat_of_message(call, message_id)
    return {"messageCancel": {"messageId": message_id}}


def cancel_jobs(call: Call) -> Data:
    need(call, "chatId")
    chat = chat_named(call)
    for answer in list(call.account.running.values()):
        if answer.chat is chat:
            answer.cancel()
    return {"cancelViewerActiveJobs": {"status": "success"}}


OPERATIONS: dict[str, Callable[[Call], Data]] = {
    "SubscriptionsMutation": subscribe,
    "SettingsPageQuery": settings_page,
    "PointsHistoryPageColumnViewerPaginationQuery": points_history,
    "HandleBotLandingPageQuery": bot_page,
    "AvailableBotsSelectorModalPaginationQuery": available_bots,
    "ExploreBotsIndexPageQuery": explore_index,
    "ExploreBotsListPaginationQuery": explore_list,
    "SearchResultsListPaginationQuery": search,
    "ChatHistoryListPaginationQuery": chat_history,
    "ChatHistoryFilteredListPaginationQuery": chat_history_of_bot,
    "ChatPageQuery": chat_page,
    "ChatListPaginationQuery": chat_messages,
    "DeleteChat": delete_chat,
    "DeleteMessageMutation": delete_messages,
    "DeleteUserMessagesMutation": delete_everything,
    "SendChatBreakMutation": chat_break,
    "StopMessage_messageCancel_Mutation": cancel_message,
    "cancelViewerActiveJobs_cancelViewerActiveJobs_Mutation": cancel_jobs,
}
