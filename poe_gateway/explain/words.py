"""Decision records in plain English, for an operator who asks why. Pure.

One line per step, in the order in which things happened. Words that are not known here (a new reason, a new code) are
shown as they are, so that a record is never less than its parts.
"""

from __future__ import annotations

from poe_gateway.pool.decision import Choice, Decision, Try

_SAMPLE = 4
"""Accounts that are named as examples."""
_WORTH_TELLING = 0.05
"""Seconds of waiting below which nobody waited."""

REASONS = {
    "paused": "paused by the operator",
    "cooldown": "resting",
    "depleted": "out of points",
    "invalid": "set aside until the operator acts",
    "model_blocked": "not used for this model for a while",
    "model_not_allowed": "not allowed to use this model",
    "held_back": "held back until it is clear who is at fault",
    "cannot_pay": "with too few points for this request",
    "tried": "tried already",
    "not_selected": "not meant for this key",
    "other_offer": "of another offer",
}
"""Why an account is passed over."""

STRATEGIES = {
    "balanced": "fewest requests in flight, large balances spared, the better of the next two",
    "spend_first": "points that are renewed soonest first",
    "fill_first": "the oldest account with a free slot",
    "round_robin": "strict turns",
    "weighted": "turns by weight",
    "single": "one account for everything",
}

REFUSALS = {
    "model_not_found": "no account serves a model of this name",
    "no_accounts": "no account is in service for this model",
    "model_unsupported": "no account may use this model",
    "all_cooling": "all accounts are resting",
    "all_depleted": "all accounts are out of points",
    "saturated": "all accounts were busy until the waiting time was over",
    "queue_full": "too many requests were waiting already",
    "deadline_unreachable": "the line was longer than the time that the request had",
    "not_ready": "the gateway held no valid capacity",
    "body_quarantined": "several accounts had refused this very request",
    "upstream_rate_limited": "the upstream limited the rate of every account tried with this request",
    "upstream_down": "the upstream did not work for any account",
    "upstream_changed": "the upstream answered in a way that the gateway does not understand",
    "session_lost": "the account of the session was not available",
    "session_account_unavailable": "the account of the session left service",
    "client_gone": "the caller went away",
}

OUTCOMES = {
    "RateLimited": "was rate limited",
    "Depleted": "found the account out of points",
    "Unauthorized": "found the credential dead",
    "Challenged": "met a bot challenge",
    "Transient": "failed on the upstream's side",
    "Rejected": "was refused by the upstream",
    "Cancelled": "ended because the caller went away",
    "NetworkFault": "failed on the way to the upstream",
    "AdapterDrift": "got an answer that the gateway does not understand",
}

SCOPES = {
    "account": "the account",
    "account+model": "the account, for this model only",
    "egress": "the way to the upstream",
    "adapter": "the site",
    "request": "the request itself",
}

WITHHELD = {
    "one_request": "one request alone may not change several accounts",
    "again": "this request had failed there before, and counts once",
    "incident": "many accounts fail together, so it is none of them",
    "quarantined": "the request itself is under suspicion",
    "fenced": "this process had lost the slot in the meantime",
}

_FATES = {
    "not_sent": "the message had not been sent",
    "unknown": "nobody knows whether the message arrived, so it was not sent again",
    "accepted": "the message had been accepted",
}

_SESSIONS = {
    "new": "The session was new.",
    "continued": "The session's conversation was continued.",
    "replayed": "The session's history was sent anew.",
    "moved": "The session moved to this account with its history.",
    "borrowed": "The session's own account was busy: this turn was answered elsewhere, the session stays where it was.",
}


def in_words(decision: Decision) -> str:
    """What happened to the request and why, in lines."""
    lines = [_asked(decision)]
    tries = list(decision.tries)
    for choice in decision.choices:
        lines.extend(_chosen(choice))
        # An account whose credentials could not be opened was chosen, but not tried.
        if choice.account_id is not None and tries and tries[0].account_id == choice.account_id:
            lines.append(_tried(tries.pop(0)))
    lines.extend(_tried(each) for each in tries)
    if decision.session and decision.tries:
        lines.append(_SESSIONS.get(decision.session, f"Session: {decision.session}."))
    lines.append(_ended(decision))
    return "\n".join(lines)


def would_choose_in_words(choice: Choice) -> str:
    """What would happen to a request now, in lines."""
    lines = [_candidates(choice)]
    if choice.account_id is not None:
        lines.append(f"It would go to {choice.account_id}{_why(choice)}.")
    elif choice.how == "queued":
        lines.append(f"It would wait in line as number {choice.position}, about {seconds(choice.wait_seconds)}.")
    else:
        lines.append(_refused("It would be refused", choice))
    return "\n".join(line for line in lines if line)


def counted(number: int, noun: str) -> str:
    """``1 account``, ``2,310 accounts``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def seconds(value: float) -> str:
    """A duration as people say it."""
    if value < 0.0995:
        return f"{value * 1000:.0f} ms"
    if value < 9.95:
        return f"{value:.1f} s"
    if value < 119.5:
        return f"{value:.0f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s" if rest else f"{minutes} min"


def known(words: dict[str, str], word: str) -> str:
    """The phrase for a word, or the word itself without its underscores."""
    return words.get(word, word.replace("_", " "))


def _asked(decision: Decision) -> str:
    who = decision.key_id or "Somebody"
    size = f" with a prompt of about {counted(decision.tokens, 'token')}" if decision.tokens else ""
    name = decision.asked or decision.model or "no model"
    return f"{who} asked for {name}{size} at {decision.at:%Y-%m-%d %H:%M:%S} UTC.{_routed(decision)}"


def _routed(decision: Decision) -> str:
    """Where the name led, if routing had a say."""
    if not (decision.asked or decision.profile or decision.tier):
        return ""
    said = f" The classifier said '{decision.label}'." if decision.label else ""
    left = f", after {counted(decision.escalations, 'place')} that could not answer" if decision.escalations else ""
    if decision.judged:
        left = f". Its answer was not good enough ({decision.judged}), and nothing better was to be had"
    tier = f" (tier {decision.tier})" if decision.tier else ""
    profile = f" by the profile {decision.profile}" if decision.profile else ""
    return f"{said} It was led{profile} to {decision.model}{tier}{left}."


def _chosen(choice: Choice) -> list[str]:
    lines = [_candidates(choice)]
    if choice.account_id is None and choice.how == "client_gone":
        return [f"Waited {seconds(choice.wait_seconds)} in line until the caller left."]
    if choice.account_id is None:
        lines.append(_refused("Refused", choice))
        return [line for line in lines if line]
    account_id, waited = choice.account_id, _waited(choice)
    if waited:
        lines = [waited, f"At its turn: {lines[0]}" if lines[0] else ""]
    match choice.how:
        case "affinity":
            lines.append(f"Returned to {account_id}, the account of its conversation.")
        case "prefix":
            lines.append(f"Returned to {account_id}, which had answered the same beginning of a conversation.")
        case "borrowed":
            lines.append(f"Borrowed {account_id}, because the account of its session was busy.")
        case _:
            lines.append(f"Chose {account_id}{_why(choice)}.")
    return [line for line in lines if line]


def _waited(choice: Choice) -> str:
    """How long the request stood in line before it was served; empty when it did not."""
    if choice.position or choice.how == "queued":
        place = f" (number {choice.position} at joining)" if choice.position else ""
        return f"Waited {seconds(choice.wait_seconds)} in line for a free slot{place}."
    if choice.how == "borrowed" and choice.wait_seconds >= _WORTH_TELLING:
        return f"Waited {seconds(choice.wait_seconds)} for the account of its session."
    return ""


def _candidates(choice: Choice) -> str:
    """How many accounts were left after each filter, and what became of the others."""
    count = choice.candidates
    if "all" not in count:
        return ""
    parts = [f"{counted(count['all'], 'account')} for this model"]
    if "selected" in count and count["selected"] != count["all"]:
        parts.append(f"{count['selected']:,} for this key")
    left = count.get("selected", 1)
    if "in_service" in count and left:
        parts.append(f"{count['in_service']:,} in service")
        left = count["in_service"]
    if "open" in count and left:
        parts.append(f"{count['open']:,} with a free slot here")
    if "untried" in count and left:
        parts.append(f"{count['untried']:,} of those not tried yet")
    need = f" Believed to cost at most {counted(choice.need, 'point')}." if choice.need else ""
    return f"{', '.join(parts)}.{_passed_over(choice)}{need}"


def _passed_over(choice: Choice) -> str:
    reasons = sorted(choice.passed_over.items(), key=lambda each: (-each[1], each[0]))
    told = ", ".join(f"{count:,} {known(REASONS, reason)}" for reason, count in reasons if count)
    return f" Passed over: {told}." if told else ""


def _why(choice: Choice) -> str:
    scores = sorted(choice.scores.items(), key=lambda each: (each[0] != choice.account_id, -each[1], each[0]))
    compared = ", ".join(f"{account_id} {score:,.0f}" for account_id, score in scores) if len(scores) > 1 else ""
    rule = f"{choice.strategy.replace('_', ' ')}: {known(STRATEGIES, choice.strategy)}" if choice.strategy else ""
    told = "; ".join(part for part in (rule, f"points less recent errors: {compared}" if compared else "") if part)
    return f" ({told})" if told else ""


def _refused(start: str, choice: Choice) -> str:
    waited = f" after {seconds(choice.wait_seconds)} in line" if choice.wait_seconds >= _WORTH_TELLING else ""
    if "untried" in choice.candidates:
        start = "No further attempt"
    examples = [each for each in choice.sample.items() if each[1] != "tried"][:_SAMPLE]
    named = "; ".join(f"{account_id} {known(REASONS, reason)}" for account_id, reason in examples)
    return f"{start}{waited}: {_because(choice)}.{f' For example: {named}.' if named else ''}"


def _because(choice: Choice) -> str:
    """Why the pool had nothing to give. What no account is to blame for is not put on the accounts."""
    if choice.how == "no_accounts":
        reasons = {reason for reason, count in choice.passed_over.items() if count}
        if reasons == {"not_selected"}:
            return "no account is meant for this key (no_accounts)"
        if "tried" in reasons and reasons <= {"tried", "not_selected"}:
            return "all accounts that could serve it have been tried"
    return f"{known(REFUSALS, choice.how)} ({choice.how})" if choice.how in REFUSALS else choice.how


def _tried(attempt: Try) -> str:
    start = f"Attempt {attempt.number} on {attempt.account_id}"
    if attempt.outcome == "Succeeded":
        first = f", first piece after {seconds(attempt.ttft_seconds)}" if attempt.ttft_seconds is not None else ""
        cost = f", for {counted(attempt.points, 'point')}" if attempt.points is not None else ""
        return f"{start} answered in {seconds(attempt.seconds)}{first}{cost}."
    fate = f"; {known(_FATES, attempt.fate)}" if attempt.fate else ""
    detail = f" ({attempt.detail})" if attempt.detail else ""
    said = f"{start} {known(OUTCOMES, attempt.outcome)} after {seconds(attempt.seconds)}{detail}{fate}."
    if attempt.withheld:
        return f"{said} The account was left as it is: {known(WITHHELD, attempt.withheld)}."
    return f"{said} Charged to {known(SCOPES, attempt.charged_to)}." if attempt.charged_to else said


def _ended(decision: Decision) -> str:
    after = f"after {seconds(decision.seconds)}"
    if decision.status == 499:
        return f"The caller went away {after}."
    code = f" {decision.error_code}" if decision.error_code else ""
    broke = " in the midst of the answer" if decision.error_code and decision.status < 400 else ""
    # Without a choice nothing above says why.
    why = "" if decision.choices else REFUSALS.get(decision.error_code or "", "")
    return f"The caller got {decision.status}{code}{broke} {after}{f': {why}' if why else ''}."
