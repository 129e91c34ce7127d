"""Growth, counted anew from the plain rows of a company: no SQL, and nothing of the models."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import date, datetime, timedelta
from statistics import mean, median
from zoneinfo import ZoneInfo

from tests.dbt.raw_rows import TIMEZONE
from tests.fixtures.growth_company import STEPS, Company, Contract

ZONE = ZoneInfo(TIMEZONE)
CONVERSION, ROI, RESOLUTION, FOLLOWUP, SIGNING, GRACE = 90, 90, 14, 14, 30, 30
NPS_WINDOW = 365


def day_of(moment: datetime) -> date:
    return moment.astimezone(ZONE).date()


def month_of(day: date) -> date:
    return day.replace(day=1)


def month_before(day: date) -> date:
    return month_of(month_of(day) - timedelta(days=1))


def month_ends(first: date, last: date) -> list[date]:
    """Return the last days of the months from that of `first` on that lie before `last`."""
    found, month = [], month_of(first)
    while True:
        month = month_of(month + timedelta(days=32))
        if month - timedelta(days=1) >= last:
            return found
        found.append(month - timedelta(days=1))


def cohort_month(as_of: date, window: int) -> date:
    """Return the newest month of which the last day has had `window` days by `as_of`."""
    month = month_of(as_of)
    while month_of(month + timedelta(days=32)) - timedelta(days=1) + timedelta(days=window) > as_of:
        month = month_before(month)
    return month


def first_orders(company: Company, as_of: date) -> dict[str, date]:
    found: dict[str, date] = {}
    for customer, day, _ in company.orders:
        if day <= as_of:
            found[customer] = min(day, found.get(customer, day))
    return found


def first_trials(company: Company, as_of: date) -> dict[str, date]:
    """Return account → day of its first trial opportunity or of its first use on a day before any order."""
    buys, found = first_orders(company, as_of), {}
    begun = [
        (each.account.account_id, day_of(each.created)) for each in company.deals if each.kind == "trial"
    ]
    for customer, day in [
        *begun,
        *(
            (each.customer, day_of(each.at))
            for each in company.steps
            if day_of(each.at) < buys.get(each.customer, date.max)
        ),
    ]:
        if day <= as_of:
            found[customer] = min(day, found.get(customer, day))
    return found


def conversions(company: Company, as_of: date) -> dict[tuple[str, str], tuple[date, date | None, int | None]]:
    """Return (kind, account) → (begun, reached, 1/0/None for still open) of everybody who began."""
    opened = defaultdict(list)
    for deal in company.deals:
        if day_of(deal.created) <= as_of and deal.kind in ("lead", "trial", "new_business"):
            opened[deal.account.account_id].append((day_of(deal.created), deal.kind))
    buys, begun = first_orders(company, as_of), {}
    trials = first_trials(company, as_of)
    for account, deals in opened.items():
        begun["lead_to_trial", account] = min(deals)[0], trials.get(account)
    for account, day in trials.items():
        begun["trial_to_paying", account] = day, buys.get(account)
    for referral in company.referrals:
        key, day = ("referral_to_paying", referral.referred.account_id), day_of(referral.on)
        if day <= as_of:
            begun[key] = min(day, begun.get(key, (day,))[0]), buys.get(key[1])
    found = {}
    for (kind, account), (start, reached) in begun.items():
        if account in buys and buys[account] < start:
            continue
        end = start + timedelta(days=CONVERSION)
        outcome = 1 if reached and reached <= end else 0 if end <= as_of else None
        found[kind, account] = (start, reached, outcome)
    return found


def rate(pairs: Iterable[int | None]) -> float | None:
    values = list(pairs)
    return sum(value or 0 for value in values) / len(values) if values else None


def conversion_rate(company: Company, as_of: date, kind: str) -> float | None:
    month = cohort_month(as_of, CONVERSION)
    return rate(
        outcome
        for (each, _), (start, _, outcome) in conversions(company, as_of).items()
        if each == kind and month_of(start) == month
    )


def channel(company: Company, account_id: str, as_of: date) -> str:
    """Return the channel of an account's first won opportunity, else of the account."""
    won = [
        (day_of(deal.closed), f"files:{deal.record_id}", deal.channel)
        for deal in company.deals
        if deal.account.account_id == account_id
        and deal.is_won
        and deal.closed
        and day_of(deal.closed) <= as_of
    ]
    own = next((each.channel for each in company.accounts if each.account_id == account_id), None)
    return (min(won)[2] if won else None) or own or "not told"


def acquisition(
    company: Company, as_of: date, month: date
) -> tuple[Counter[str], dict[str, float], dict[str, float]]:
    """Return new accounts, spend and revenue in the window by channel, of a month."""
    new: Counter[str] = Counter()
    revenue: dict[str, float] = defaultdict(float)
    for account, first in first_orders(company, as_of).items():
        if month_of(first) == month:
            by = channel(company, account, as_of)
            new[by] += 1
            revenue[by] += sum(
                float(amount)
                for customer, day, amount in company.orders
                if customer == account and day <= as_of and (day - first).days < ROI
            )
    spend = {by: float(amount) for day, by, amount in company.spend if day == month and day <= as_of}
    return new, spend, revenue


def tickets(company: Company, as_of: date) -> tuple[float | None, float | None, float | None]:
    """Return the resolution rate, and the mean and median hours of tickets closed in the month."""
    month = cohort_month(as_of, RESOLUTION)
    outcomes, hours = [], []
    for each in company.tickets:
        opened = day_of(each.opened)
        closed = day_of(each.resolved) if each.resolved and day_of(each.resolved) <= as_of else None
        if month_of(opened) == month:
            outcomes.append(int(closed is not None and (closed - opened).days <= RESOLUTION))
        if closed and each.resolved and month_of(closed) == month_of(as_of):
            hours.append((each.resolved - each.opened).total_seconds() / 3600)
    return rate(outcomes), mean(hours) if hours else None, median(hours) if hours else None


def nps(company: Company, as_of: date) -> tuple[float | None, float | None]:
    """Return company NPS and the mean of the accounts' own NPS."""
    newest: dict[tuple[str, str], tuple[datetime, str, int]] = {}
    for each in company.answers:
        if as_of - timedelta(days=365) < day_of(each.answered) <= as_of:
            who = (each.account.account_id, each.contact or f"company {each.account.record_id}")
            newest[who] = max(
                newest.get(who, (each.answered, "", 0)), (each.answered, each.record_id, each.score)
            )
    points = {who: (score >= 9) - (score <= 6) for who, (_, _, score) in newest.items()}
    by_account = defaultdict(list)
    for (account, _), point in points.items():
        by_account[account].append(point)
    if not points:
        return None, None
    return 100 * mean(points.values()), 100 * mean(mean(values) for values in by_account.values())


def csat(company: Company, as_of: date) -> tuple[float | None, float | None]:
    """Return the share of satisfied answers and the mean answer of the month."""
    scores = [
        each.csat
        for each in company.tickets
        if each.csat and each.resolved and month_of(as_of) <= day_of(each.resolved) <= as_of
    ]
    return rate(int(score >= 4) for score in scores), mean(scores) if scores else None


def followed_up(company: Company, as_of: date) -> float | None:
    deeds = defaultdict(list)
    for ticket in company.tickets:
        deeds[ticket.account.account_id].append(day_of(ticket.opened))
    for deal in company.deals:
        deeds[deal.account.account_id].append(day_of(deal.created))
    return rate(
        int(
            any(
                0 <= (day - day_of(each.answered)).days <= FOLLOWUP and day <= as_of
                for day in deeds[each.account.account_id]
            )
        )
        for each in company.answers
        if each.score <= 6 and FOLLOWUP <= (as_of - day_of(each.answered)).days < NPS_WINDOW
    )


def signed_by(contract: Contract, as_of: date) -> date | None:
    signed = day_of(contract.signed) if contract.signed else None
    return signed if signed and signed <= as_of else None


def renewal_rate(company: Company, as_of: date) -> float | None:
    month, grace = cohort_month(as_of, GRACE), timedelta(days=GRACE)
    ended = [c for c in company.contracts if month_of(c.ends) == month and signed_by(c, as_of)]

    def renews(successor: Contract, contract: Contract) -> bool:
        signed = signed_by(successor, as_of)
        if (
            successor is contract
            or successor.account != contract.account
            or not signed
            or signed > contract.ends + grace
        ):
            return False
        follows = successor.ends > contract.ends and abs(successor.starts - contract.ends) <= grace
        return successor.renews == contract.record_id or follows

    return rate(int(any(renews(other, each) for other in company.contracts)) for each in ended)


def signing(company: Company, as_of: date) -> tuple[float | None, float | None, float | None]:
    """Return the share signed, and mean and median hours; what was not signed in time lasted for ever."""
    month = cohort_month(as_of, SIGNING)
    hours = []
    for each in company.contracts:
        if month_of(day_of(each.sent)) == month:
            signed = signed_by(each, as_of)
            in_time = signed is not None and (signed - day_of(each.sent)).days <= SIGNING
            hours.append(
                (each.signed - each.sent).total_seconds() / 3600 if in_time and each.signed else float("inf")
            )
    ended = [each for each in hours if each != float("inf")]
    middle = median(hours) if hours else None
    return (
        rate(int(each != float("inf")) for each in hours),
        mean(ended) if ended else None,
        None if middle == float("inf") else middle,
    )


def sessions(company: Company, as_of: date) -> list[tuple[date, str, int, str]]:
    """Return (day begun, customer, furthest step, path) of every session, of what was seen by `as_of`."""
    by_key: dict[tuple[str, str], list[tuple[datetime, int]]] = defaultdict(list)
    for step in company.steps:
        if day_of(step.at) <= as_of:
            by_key[step.customer, step.session or ""].append((step.at, STEPS.index(step.name)))
    found = []
    for (customer, _), steps in by_key.items():
        parts: dict[date, list[tuple[datetime, int]]] = defaultdict(list)
        for each in sorted(steps):
            parts[day_of(each[0])].append(each)
        joined: list[list[list[tuple[datetime, int]]]] = []
        for _, part in sorted(parts.items()):
            if joined and part[0][0] - joined[-1][-1][-1][0] <= timedelta(minutes=30):
                joined[-1].append(part)
            else:
                joined.append([part])
        for session in joined:
            names = []
            for part in session:
                names += [s for place, (_, s) in enumerate(part) if place == 0 or part[place - 1][1] != s]
            path = " > ".join(STEPS[step].removeprefix("flow_") for step in names)
            found.append((day_of(session[0][0][0]), customer, max(names), path))
    return found
