"""What choosing a seat costs: microseconds for a pick and its release, by strategy and size of the pool.

    .venv/bin/python -m benchmarks.choice [--seats 10 1000 100000] [--picks 20000] [--rounds 5]

In memory, one thread, no request around it. A pick is ``best``, ``chosen`` and ``place``; the release is one more
``place``. Points are on four rungs, so a pick compares them. ``in flight`` requests are held all the time, each pick
followed by the release of the oldest. The bare figure takes the front of an OrderedDict of the same size and puts it
back at the end; it is measured in the same rounds, and the ratio to it is the figure to quote: medians over the rounds.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections import OrderedDict, deque
from collections.abc import Callable

from poe_gateway.pool.account import EPOCH, Account, Balance
from poe_gateway.pool.index import Seat, SeatIndex
from poe_gateway.pool.policy import Strategy
from poe_gateway.pool.selector import EVERY

OFFERS = frozenset({"bench"})
PRICES = (20, 100, 1000)
SLOTS = 2


def score(account: Account) -> float:
    """As the broker's: more points, fewer errors."""
    return float(account.balance.points or 0) - 20.0 * account.error_count


def pool(size: int) -> SeatIndex:
    """Open seats with balances between 0 and 2,999, weights 1 to 3, renewals over a day."""
    index = SeatIndex()
    index.price_rungs(PRICES)
    for number in range(size):
        points = number * 7919 % 3000
        account = Account(
            id=f"acct_{number:012}",
            provider="bench",
            name=f"bench-{number}",
            offer="bench",
            balance=Balance(points=points, estimated=False, measured_at=EPOCH),
            weight=1 + number % 3,
        )
        seat = Seat(account, number)
        seat.allowed, seat.held, seat.spendable = True, SLOTS, points
        seat.renews_at = 3600.0 * (number % 24)
        index.place(seat)
    return index


def picking(index: SeatIndex, strategy: Strategy, in_flight: int, need: int) -> Callable[[int], None]:
    """Picks and releases that many times."""
    held: deque[Seat] = deque()

    def pick() -> None:
        seat = index.best(
            OFFERS, strategy=strategy, selector=EVERY, need=need, refuse=None, tried=(), score=score, seen=None
        )
        assert seat is not None
        index.chosen(seat, strategy, EVERY)
        seat.used += 1
        index.place(seat)
        held.append(seat)

    def run(times: int) -> None:
        for _ in range(times):
            pick()
            seat = held.popleft()
            seat.used -= 1
            index.place(seat)

    for _ in range(in_flight):
        pick()
    return run


def bare(size: int) -> Callable[[int], None]:
    row = OrderedDict((f"acct_{number:012}", number) for number in range(size))

    def run(times: int) -> None:
        for _ in range(times):
            key, value = row.popitem(last=False)
            row[key] = value

    return run


def microseconds(run: Callable[[int], None], times: int) -> float:
    begun = time.perf_counter()
    run(times)
    return (time.perf_counter() - begun) / times * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seats", type=int, nargs="+", default=[10, 1000, 100_000])
    parser.add_argument("--picks", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--need", type=int, default=20, help="points that each request may cost")
    options = parser.parse_args()
    print("| seats | strategy | in flight | us per pick and release | bare us | times bare |")
    print("|---" * 6 + "|")
    for size in options.seats:
        plain = bare(size)
        for strategy in Strategy:
            # One request under ``single`` is all that its one seat may be short of.
            in_flight = min(size // 4, 1 if strategy is Strategy.SINGLE else 100)
            run = picking(pool(size), strategy, in_flight, options.need)
            run(options.picks)
            gc.collect()
            base = [microseconds(plain, options.picks)]
            cost = []
            for _ in range(options.rounds):
                cost.append(microseconds(run, options.picks))
                base.append(microseconds(plain, options.picks))
            own, other = statistics.median(cost), statistics.median(base)
            print(f"| {size:,} | {strategy} | {in_flight} | {own:.2f} | {other:.2f} | {own / other:.1f} |", flush=True)


if __name__ == "__main__":
    main()
