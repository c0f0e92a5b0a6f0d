"""Sending and regenerating: whether a message is taken, and the answer that is set off."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from . import checks
from .answers import Answer
from .behaviour import Behaviour
from .calls import Call, Data, Unservable, chat_of_message, unused_nonce, use_nonce
from .chats import Chat, Message


@dataclass(slots=True)
class Sent:
    """What became of a SendMessage (or Regenerate): the answer's data and the work it set off."""

    data: Data | None
    behaviour: Behaviour
    answer: Answer | None = None


def send(call: Call) -> Sent:
    """Take a message, or say why not. State changes here; the answer starts in `Answer.begin`."""
    site, account, variables = call.site, call.account, call.variables
    if why := checks.send_variables(variables, call.generation):
        raise Unservable(why)
    unused_nonce(call)
    bot = site.bot(variables["bot"])
    if bot is None:
        raise Unservable(f"no bot {variables['bot']!r}")
    attachments = _attachments(call)
    chat = None
    if variables["chatId"] is not None:
        chat = account.chats.get(variables["chatId"])
        if chat is None:
            raise Unservable(f"no chat {variables['chatId']} in this account")
    account.stats.sends_received += 1
    query = variables["query"]
    behaviour = account.next_behaviour().with_markers(query)
    if behaviour.fault:
        return Sent(None, behaviour)
    status, message = _verdict(call, behaviour, bot.price, accessible=bot.accessible)
    if status != "success" or behaviour.missing_chat:
        return Sent(_edge(status, message, None, bot.node(), None), behaviour)
    use_nonce(call)
    account.sent_at.append(site.now())
    site.note_accepted(account, query)
    if not call.channel.subscribed:
        account.stats.unsubscribed_sends += 1
        site.reject(account, "SendMessageMutation", "sent on a channel without subscriptions", 200)
    new = chat is None
    if chat is None:
        chat = Chat(bot=bot)
        account.chats[chat.chat_id] = chat
        account.stats.chats_created += 1
    chat.bot = bot
    human = Message(author="human", text=query, client_nonce=variables["clientNonce"], attachments=attachments)
    chat.messages.append(human)
    answer = Answer(site, account, chat, human, behaviour, new, call.channel, call.connection)
    answer.begin()
    shown = {key: chat.summary()[key] for key in ("chatId", "chatCode", "id", "title")} if new else None
    return Sent(_edge("success", None, human, bot.node(), shown), behaviour, answer)


def _edge(status: str, message: str | None, human: Message | None, bot: Data, chat: Data | None) -> Data:
    node = {"node": human.node()} if human else None
    return {
        "messageEdgeCreate": {
            "status": status,
            "statusMessage": message,
            "message": node,
            "bot": bot,
            "botMessage": None,
            "chat": chat,
        }
    }


def _verdict(call: Call, behaviour: Behaviour, price: int, *, accessible: bool) -> tuple[str, str | None]:
    """Status and status message of a send that is formally right."""
    account, now = call.account, call.site.now()
    account.renew(now)
    if behaviour.status != "success":
        return behaviour.status, behaviour.status_message
    if behaviour.missing_chat:
        return "success", "The chat could not be created."
    if not accessible:
        return "no_access", "You cannot use this bot."
    if len(account.running) >= account.concurrency:
        call.site.reject(account, "SendMessageMutation", "too many messages at once", 200)
        return "concurrent_messages", "Please wait for the current message to finish."
    if account.rate_limit is not None:
        count, seconds = account.rate_limit
        while account.sent_at and account.sent_at[0] <= now - seconds:
            account.sent_at.popleft()
        if len(account.sent_at) >= count:
            call.site.reject(account, "SendMessageMutation", "messages too fast", 200)
            return "rate_limit_exceeded", "You are sending messages too quickly."
    if account.points < price:
        return "reached_limit", "You need more points to send this message."
    return "success", None


def _attachments(call: Call) -> list[str]:
    """The names of the attached files; each must have been uploaded by this account."""
    fields = call.variables["attachments"]
    if call.generation == "legacy":
        if sorted(fields) != sorted(call.files):
            raise Unservable(f"attachments {fields} are not the files sent {sorted(call.files)}")
        return [call.files[name] for name in fields]
    names = []
    for token in call.variables["fileHashJwts"]:
        if token not in call.account.upload_tokens:
            raise Unservable("a fileHashJwt was not issued to this account")
        names.append(call.account.upload_tokens[token])
    return names


def regenerate(call: Call) -> Sent:
    if not {"messageId"} <= set(call.variables) <= {"messageId", "messagePointsDisplayPrice"}:
        raise Unservable("variables are not {messageId}")
    chat = chat_of_message(call, call.variables["messageId"])
    old = chat.message(call.variables["messageId"])
    asked = [message for message in chat.messages if message.author == "human"]
    if old is None or old.author == "human" or not asked:
        raise Unservable("not an answer of a bot")
    behaviour = call.account.next_behaviour().with_markers(asked[-1].text)
    status, message = _verdict(call, behaviour, chat.bot.price, accessible=chat.bot.accessible)
    if status != "success":
        return Sent({"messageRegenerate": {"status": status, "statusMessage": message}}, behaviour)
    call.account.stats.regenerates += 1
    chat.messages.remove(old)
    answer = Answer(call.site, call.account, chat, asked[-1], behaviour, False, call.channel, call.connection)
    answer.begin()
    node = answer.reply.node()
    return Sent({"messageRegenerate": {"status": "success", "message": node}}, behaviour, answer)


SENDING: dict[str, Callable[[Call], Sent]] = {
    "SendMessageMutation": send,
    "RegenerateMessageMutation": regenerate,
}
