"""Records as a person reads them: whole texts for the cases that matter, and nothing that breaks them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poe_gateway.explain import words
from poe_gateway.explain.words import in_words, seconds, would_choose_in_words
from poe_gateway.pool.decision import Choice, Decision, Try
from poe_gateway.pool.outcome import Outcome, Succeeded
from poe_gateway.pool.policy import Strategy

AT = datetime(2026, 5, 20, 10, 31, 7, tzinfo=UTC)


def request(**fields: Any) -> Decision:
    made: dict[str, Any] = {"request_id": "req_1", "at": AT, "key_id": "key_app", "model": "gpt-4o", "tokens": 1200}
    return Decision(**{**made, **fields})


SERVED = request(
    choices=[
        Choice(
            strategy="balanced",
            candidates={"all": 50, "in_service": 45, "open": 40},
            passed_over={"depleted": 2, "cooldown": 3},
            scores={"acct_9": 1200.0, "acct_7": 2310.0},
            need=60,
            account_id="acct_7",
            how="chosen",
        )
    ],
    tries=[
        Try(number=1, account_id="acct_7", outcome="Succeeded", seconds=1.21, ttft_seconds=0.32, points=35),
    ],
    session="new",
    status=200,
    seconds=1.3,
)
SERVED_TEXT = """\
key_app asked for gpt-4o with a prompt of about 1,200 tokens at 2026-05-20 10:31:07 UTC.
50 accounts for this model, 45 in service, 40 with a free slot here. Passed over: 3 resting, 2 out of points. \
Believed to cost at most 60 points.
Chose acct_7 (balanced: fewest requests in flight, large balances spared, the better of the next two; \
points less recent errors: acct_7 2,310, acct_9 1,200).
Attempt 1 on acct_7 answered in 1.2 s, first piece after 0.3 s, for 35 points.
The session was new.
The caller got 200 after 1.3 s."""


def test_where_a_name_led_is_told() -> None:
    plain = in_words(request(status=200)).splitlines()[0]
    assert plain.endswith("at 2026-05-20 10:31:07 UTC.")
    routed = request(asked="hint:x", profile="a -> b", tier="cloud:big", label="hard", escalations=2, status=200)
    assert in_words(routed).splitlines()[0] == (
        "key_app asked for hint:x with a prompt of about 1,200 tokens at 2026-05-20 10:31:07 UTC. "
        "The classifier said 'hard'. It was led by the profile a -> b to gpt-4o (tier cloud:big), "
        "after 2 places that could not answer."
    )


QUEUED = request(
    choices=[
        Choice(
            strategy="round_robin",
            candidates={"all": 2, "selected": 1, "in_service": 1, "open": 1},
            account_id="acct_7",
            how="queued",
            wait_seconds=3.24,
            position=4,
        )
    ],
    tries=[Try(number=1, account_id="acct_7", outcome="Succeeded", seconds=65.0)],
    status=200,
    seconds=130.0,
)
QUEUED_TEXT = """\
key_app asked for gpt-4o with a prompt of about 1,200 tokens at 2026-05-20 10:31:07 UTC.
Waited 3.2 s in line for a free slot (number 4 at joining).
At its turn: 2 accounts for this model, 1 for this key, 1 in service, 1 with a free slot here.
Chose acct_7 (round robin: strict turns).
Attempt 1 on acct_7 answered in 65 s.
The caller got 200 after 2 min 10 s."""

FAILED_OVER = request(
    choices=[
        Choice(candidates={"all": 3, "in_service": 3, "open": 3}, account_id="acct_1", how="affinity"),
        Choice(
            strategy="balanced",
            candidates={"all": 3, "in_service": 2, "open": 2, "untried": 2},
            passed_over={"cooldown": 1},
            account_id="acct_2",
            how="chosen",
        ),
        Choice(candidates={"all": 3, "in_service": 2, "open": 2, "untried": 1}, account_id="acct_3", how="chosen"),
    ],
    tries=[
        Try(
            number=1,
            account_id="acct_1",
            outcome="RateLimited",
            fate="not_sent",
            detail="HTTP 429",
            charged_to="account",
            seconds=0.042,
        ),
        Try(
            number=2,
            account_id="acct_2",
            outcome="Challenged",
            fate="not_sent",
            charged_to="account",
            withheld="one_request",
            seconds=0.4,
        ),
        Try(number=3, account_id="acct_3", outcome="Succeeded", seconds=1.2, points=1),
    ],
    session="moved",
    status=200,
    seconds=1.9,
)
FAILED_OVER_TEXT = """\
key_app asked for gpt-4o with a prompt of about 1,200 tokens at 2026-05-20 10:31:07 UTC.
3 accounts for this model, 3 in service, 3 with a free slot here.
Returned to acct_1, the account of its conversation.
Attempt 1 on acct_1 was rate limited after 42 ms (HTTP 429); the message had not been sent. Charged to the account.
3 accounts for this model, 2 in service, 2 with a free slot here, 2 of those not tried yet. Passed over: 1 resting.
Chose acct_2 (balanced: fewest requests in flight, large balances spared, the better of the next two).
Attempt 2 on acct_2 met a bot challenge after 0.4 s; the message had not been sent. The account was left as it is: \
one request alone may not change several accounts.
3 accounts for this model, 2 in service, 2 with a free slot here, 1 of those not tried yet.
Chose acct_3.
Attempt 3 on acct_3 answered in 1.2 s, for 1 point.
The session moved to this account with its history.
The caller got 200 after 1.9 s."""

REFUSED = request(
    tokens=0,
    choices=[
        Choice(
            strategy="balanced",
            candidates={"all": 5, "in_service": 0, "open": 0, "selected": 4},
            passed_over={"cooldown": 3, "depleted": 1, "not_selected": 1},
            sample={"acct_1": "cooldown", "acct_2": "depleted"},
            how="all_cooling",
        )
    ],
    status=503,
    error_code="all_cooling",
    seconds=0.0004,
)
REFUSED_TEXT = """\
key_app asked for gpt-4o at 2026-05-20 10:31:07 UTC.
5 accounts for this model, 4 for this key, 0 in service. Passed over: 3 resting, 1 out of points, \
1 not meant for this key.
Refused: all accounts are resting (all_cooling). For example: acct_1 resting; acct_2 out of points.
The caller got 503 all_cooling after 0 ms."""


@pytest.mark.parametrize(
    ("decision", "text"),
    [(SERVED, SERVED_TEXT), (QUEUED, QUEUED_TEXT), (FAILED_OVER, FAILED_OVER_TEXT), (REFUSED, REFUSED_TEXT)],
    ids=["served", "queued", "failed over", "refused"],
)
def test_texts(decision: Decision, text: str) -> None:
    assert in_words(decision) == text


def test_an_account_that_could_not_be_opened_was_chosen_and_not_tried() -> None:
    choices = [Choice(account_id="acct_1", how="prefix"), Choice(account_id="acct_2", how="borrowed")]
    tries = [Try(number=1, account_id="acct_2", outcome="NetworkFault", charged_to="egress", seconds=2.0)]
    lines = in_words(request(choices=choices, tries=tries, status=502, error_code="upstream_error")).splitlines()
    assert lines[1:4] == [
        "Returned to acct_1, which had answered the same beginning of a conversation.",
        "Borrowed acct_2, because the account of its session was busy.",
        "Attempt 1 on acct_2 failed on the way to the upstream after 2.0 s. Charged to the way to the upstream.",
    ]


def test_who_waited_for_the_account_of_its_session_and_borrowed() -> None:
    choice = Choice(candidates={"all": 2, "in_service": 2}, account_id="acct_2", how="borrowed", wait_seconds=3.0)
    assert in_words(request(choices=[choice])).splitlines()[1:4] == [
        "Waited 3.0 s for the account of its session.",
        "At its turn: 2 accounts for this model, 2 in service.",
        "Borrowed acct_2, because the account of its session was busy.",
    ]


@pytest.mark.parametrize(
    ("passed_over", "tried", "said"),
    [
        ({"not_selected": 3}, False, "Refused: no account is meant for this key (no_accounts)."),
        ({"paused": 1, "not_selected": 3}, False, "Refused: no account is in service for this model (no_accounts)."),
        ({"tried": 2}, True, "No further attempt: all accounts that could serve it have been tried."),
        ({"tried": 2, "paused": 1}, True, "No further attempt: no account is in service for this model (no_accounts)."),
    ],
)
def test_no_accounts_for_different_reasons(passed_over: dict[str, int], *, tried: bool, said: str) -> None:
    candidates = {"all": 3, "in_service": 1, "open": 1, "selected": 3, **({"untried": 0} if tried else {})}
    sample = {"acct_1": "tried"} if tried else {}
    choice = Choice(candidates=candidates, passed_over=passed_over, sample=sample, how="no_accounts")
    text = in_words(request(choices=[choice], status=503, error_code="no_accounts"))
    assert said in text.splitlines()
    assert "3 accounts for this model, 1 in service" in text, "the selector left nobody out"


def test_after_a_filter_that_left_nobody_the_later_ones_are_not_told() -> None:
    candidates = {"all": 3, "selected": 0, "in_service": 2, "open": 2}
    text = would_choose_in_words(Choice(candidates=candidates, passed_over={"not_selected": 3}, how="no_accounts"))
    assert text.splitlines()[0] == "3 accounts for this model, 0 for this key. Passed over: 3 not meant for this key."


def test_a_request_that_came_to_no_choice_says_why() -> None:
    text = in_words(request(status=404, error_code="model_not_found", seconds=0))
    assert text.endswith("The caller got 404 model_not_found after 0 ms: no account serves a model of this name.")


def test_ends_that_are_no_answers() -> None:
    assert in_words(request(status=499, error_code="client_gone", seconds=4)).endswith(
        "The caller went away after 4.0 s."
    )
    broken = request(status=200, error_code="upstream_error", seconds=4)
    assert in_words(broken).endswith("The caller got 200 upstream_error in the midst of the answer after 4.0 s.")


def test_dry_runs() -> None:
    some = {"all": 2, "in_service": 2, "open": 1}
    goes = would_choose_in_words(Choice(strategy="single", candidates=some, account_id="acct_1", how="chosen"))
    assert goes.endswith("\nIt would go to acct_1 (single: one account for everything).")
    waits = would_choose_in_words(Choice(candidates=some, how="queued", position=3, wait_seconds=12.4))
    assert waits.endswith("\nIt would wait in line as number 3, about 12 s.")
    refused = would_choose_in_words(Choice(how="queue_full"))
    assert refused == "It would be refused: too many requests were waiting already (queue_full)."


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0 ms"), (0.0994, "99 ms"), (0.0996, "0.1 s"), (9.94, "9.9 s"), (9.96, "10 s"), (119.4, "119 s"),
        (119.6, "2 min"), (3605, "60 min 5 s"),
    ],
)  # fmt: skip
def test_durations(value: float, text: str) -> None:
    assert seconds(value) == text


def test_every_outcome_strategy_and_withheld_reason_has_words() -> None:
    outcomes = {kind.__name__ for kind in Outcome.__args__} - {Succeeded.__name__}  # type: ignore[attr-defined]
    assert outcomes == set(words.OUTCOMES)
    assert {each.value for each in Strategy} == set(words.STRATEGIES)


ANY = st.text(max_size=20)
FIGURES = st.floats(0, 1e9)
CHOICES = st.builds(
    Choice,
    strategy=ANY,
    candidates=st.dictionaries(
        st.sampled_from(["all", "selected", "in_service", "open", "untried"]), st.integers(0, 9)
    ),
    passed_over=st.dictionaries(ANY, st.integers(0, 9)),
    sample=st.dictionaries(ANY, ANY),
    scores=st.dictionaries(ANY, FIGURES),
    need=st.integers(0, 10**9),
    account_id=st.none() | ANY,
    how=ANY,
    wait_seconds=FIGURES,
    position=st.integers(0, 9),
)
TRIES = st.builds(
    Try,
    number=st.integers(1, 9),
    account_id=ANY,
    outcome=ANY,
    fate=st.none() | ANY,
    detail=ANY,
    charged_to=ANY,
    withheld=ANY,
    seconds=FIGURES,
    ttft_seconds=st.none() | FIGURES,
    points=st.none() | st.integers(0, 10**9),
)


@given(
    choices=st.lists(CHOICES, max_size=4),
    tries=st.lists(TRIES, max_size=4),
    session=ANY,
    status=st.integers(0, 599),
    code=st.none() | ANY,
    elapsed=FIGURES,
)
def test_every_record_can_be_told(
    choices: list[Choice], tries: list[Try], session: str, status: int, code: str | None, elapsed: float
) -> None:
    text = in_words(
        request(choices=choices, tries=tries, session=session, status=status, error_code=code, seconds=elapsed)
    )
    for attempt in tries:
        assert f"Attempt {attempt.number} on {attempt.account_id}" in text
    for choice in choices:
        assert would_choose_in_words(choice)
