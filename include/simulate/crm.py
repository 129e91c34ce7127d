"""What the CRM of the simulated company holds beside its accounts: contacts, deals, tickets, NPS answers.

None of it is real. The same values on every machine, by the rule of company.py: only `random.Random.random()`
and exact arithmetic. An account that is about to leave shows it, not always and not alone: in the last
TROUBLE_DAYS days it mostly opens more and graver tickets that stay open longer, answers lower, and loses deals;
some leave silently, and some stay through a bad time. Every value is dated, so that the CRM can be asked for any
past day.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache
from random import Random

from include.simulate.company import DAYS, FIRST_DAY, LAST_DAY, SEED, Customer, accounts, customers

SHANGHAI = timezone(timedelta(hours=8))
END = datetime(LAST_DAY.year, LAST_DAY.month, LAST_DAY.day, tzinfo=SHANGHAI) + timedelta(days=1)
"""Nothing in the CRM is dated at or after it."""

TROUBLE_DAYS = 120
SILENT_SHARE = 0.15  # of leaving customers: they go without a sign
BAD_TIME_SHARE = 0.10  # of staying customers: a bad time that they stay through
NO_DECISION_MAKER_SHARE = 0.2  # of accounts
OPT_OUT_SHARE = 0.07  # of contacts
LEFT_SHARE = 0.02  # of contacts: archived, they work there no more
UNASSIGNED_SHARE = 0.01  # of deals and tickets: nobody named the company
UNASSIGNED_CONTACTS = 20
DEALS_A_QUARTER = 0.44  # with an active customer
SURVEYED_SHARE = 0.92  # of accounts
SURVEY_DAYS = 182

STAGES = (
    "appointmentscheduled",
    "qualifiedtobuy",
    "presentationscheduled",
    "decisionmakerboughtin",
    "contractsent",
)
"""HubSpot's own stages of an open deal, in order; then closedwon or closedlost."""
CHANNELS = (
    "ORGANIC_SEARCH",
    "PAID_SEARCH",
    "REFERRALS",
    "DIRECT_TRAFFIC",
    "OFFLINE",
    "OFFLINE",
    "EMAIL_MARKETING",
    "SOCIAL_MEDIA",
)
TITLES = ("Buyer", "Plant engineer", "Warehouse lead", "Safety officer", "Purchasing manager", "Accountant")
ROLES = ("END_USER", "END_USER", "INFLUENCER", "CHAMPION", "END_USER;INFLUENCER", "BLOCKER")
DECIDERS = ("DECISION_MAKER", "DECISION_MAKER;BUDGET_HOLDER", "DECISION_MAKER;CHAMPION")
SUBJECTS = (
    "Late delivery",
    "Wrong item",
    "Invoice question",
    "Damaged goods",
    "Portal login",
    "Certificate missing",
)
PRIORITIES = ("LOW", "MEDIUM", "HIGH", "URGENT")
USUAL_GRAVITY = (0.42, 0.42, 0.13, 0.03)
TROUBLE_GRAVITY = (0.15, 0.35, 0.32, 0.18)
NEW, WAITING_ON_THEM, WAITING_ON_US, CLOSED = "1", "2", "3", "4"
"""HubSpot's own stages of its support pipeline."""

Values = list[tuple[str, datetime, str]]


@dataclass(frozen=True)
class Record:
    """One CRM record: its object type, its account's number (None: of no company), and every value it ever had.

    `values` are (property, set at, value), oldest first.
    """

    kind: str
    account: str | None
    created_at: datetime
    values: tuple[tuple[str, datetime, str], ...]
    archived_at: datetime | None = None


@dataclass(frozen=True)
class _Account:
    """An account of the CRM; a prospect has no customer."""

    number: str
    created_day: int
    customer: Customer | None
    trouble: tuple[int, int] | None
    """First and last day of a bad time."""

    @property
    def since(self) -> int:
        return self.customer.first_day if self.customer else self.created_day

    @property
    def until(self) -> int:
        return self.customer.last_day if self.customer else DAYS - 1

    def is_troubled(self, day: float) -> bool:
        return self.trouble is not None and self.trouble[0] <= day <= self.trouble[1]


@lru_cache(maxsize=1)
def records() -> tuple[Record, ...]:
    """Return all records, by object type (HubSpot's names), then by time of creation."""
    known = _accounts()
    kinds = (_contacts, _deals, _tickets, _answers)
    found = []
    for offset, make in enumerate(kinds):
        random = Random(SEED + 11 + offset)  # noqa: S311 - simulation
        made = [record for record in make(known, random) if record.created_at < END]
        found += sorted(made, key=lambda record: (record.created_at, record.account or ""))
    return tuple(found)


def _accounts() -> list[_Account]:
    random = Random(SEED + 10)  # noqa: S311 - simulation
    buyers = {customer.number: customer for customer in customers()}
    found = []
    for account in accounts():
        number = account["account_number"]
        created = datetime.fromisoformat(account["created_at"]).date()
        customer = buyers.get(number)
        trouble = _trouble(customer, random) if customer else None
        found.append(_Account(number, (created - FIRST_DAY).days, customer, trouble))
    return found


def _trouble(customer: Customer, random: Random) -> tuple[int, int] | None:
    shows, start = random.random(), random.random()
    if customer.last_day < DAYS - 1:
        is_silent = shows < SILENT_SHARE
        return None if is_silent else (customer.last_day - TROUBLE_DAYS, customer.last_day)
    if shows >= BAD_TIME_SHARE:
        return None
    first = customer.first_day + int(start * (customer.last_day - customer.first_day - 60))
    return (first, first + 90)


def _contacts(known: list[_Account], random: Random) -> list[Record]:
    found = []
    for account in known:
        size = account.customer.size if account.customer else 2.0
        many = 1 + int(3.4 * random.random()) + (size > 4) + (size > 15)
        lacks_decider = random.random() < NO_DECISION_MAKER_SHARE
        for place in range(many):
            later = 0 if place == 0 else int(300 * random.random())
            is_decider = place == 0 and not lacks_decider
            found.append(_contact(account, account.created_day + later, is_decider, random))
    for _ in range(UNASSIGNED_CONTACTS):
        found.append(_contact(None, int(DAYS * random.random()), False, random))
    return found


def _contact(account: _Account | None, day: int, is_decider: bool, random: Random) -> Record:
    created = _office_hour(day, random)
    title = "Managing director" if is_decider and random.random() < 0.5 else _pick(random, TITLES)
    values: Values = [("jobtitle", created, title)]
    role = _pick(random, DECIDERS if is_decider else ROLES)
    told = random.random()
    if told < 0.65:
        values.append(("hs_buying_role", created, role))
    elif told < 0.9 or is_decider:  # somebody filled it in later; of some it is never known
        values.append(("hs_buying_role", _office_hour(day + 4 + 120 * random.random(), random), role))
    opts_out, when, leaves = random.random(), random.random(), random.random()
    if opts_out < OPT_OUT_SHARE:
        values.append(("hs_email_optout", _office_hour(day + 30 + 400 * when, random), "true"))
    archived = _office_hour(day + 90 + 400 * when, random) if leaves < LEFT_SHARE else None
    return _record("contacts", account.number if account else None, created, values, archived)


def _deals(known: list[_Account], random: Random) -> list[Record]:
    found = []
    for account in known:
        if account.customer is None or account.since > 60:
            found.append(_first_deal(account, random))
        if account.customer is None:
            continue
        day = account.since + 90
        while day < account.until + 200:  # the last ones try to win a lost customer back
            gone = day > account.until
            if random.random() < (0.15 if gone else DEALS_A_QUARTER):
                start = day + 80 * random.random()
                chance = 0.06 if gone else 0.18 if account.is_troubled(start) else 0.58
                found.append(_deal(account, start, chance, random))
            day += 91
    return found


def _first_deal(account: _Account, random: Random) -> Record:
    """Return the deal that made an account a customer, won just before its first order; a prospect's is open or lost."""
    if account.customer is None:
        created = _office_hour(account.created_day, random)
        return _staged(account, created, "newbusiness", 25.0, 0.0, random)
    day = FIRST_DAY + timedelta(days=account.created_day)
    created = datetime(day.year, day.month, day.day, 10, tzinfo=SHANGHAI)
    days = account.since - account.created_day - 0.5
    values = _opened(account, created, "newbusiness", random)
    for place, stage in enumerate((*STAGES[1:], "closedwon"), start=1):
        values += _moved(created + timedelta(days=days * place / len(STAGES)), stage)
    return _record("deals", account.number, created, values)


def _deal(account: _Account, day: float, chance: float, random: Random) -> Record:
    return _staged(account, _office_hour(day, random), "existingbusiness", 14.0, chance, random)


def _staged(
    account: _Account, created: datetime, kind: str, days: float, chance: float, random: Random
) -> Record:
    """Return a deal that takes about `days` a stage, and is won with `chance`, or stalls, or is lost on its way."""
    values = _opened(account, created, kind, random)
    fate = random.random()
    stalls = fate > 0.95
    last = len(STAGES) if fate < chance else 1 + int((len(STAGES) - 1) * random.random())
    at = created
    for stage in STAGES[1:last]:
        at += timedelta(days=1 + days * 2 * random.random())
        values += _moved(at, stage)
        if random.random() < 0.2:  # the customer takes more or less of it
            amount = int(_amount(account, random))
            values.append(("amount", at, str(amount)))
    at += timedelta(days=1 + days * 2 * random.random())
    if not stalls:
        values += _moved(at, "closedwon" if fate < chance else "closedlost")
    number = account.number if random.random() >= UNASSIGNED_SHARE else None
    return _record("deals", number, created, values)


def _opened(account: _Account, created: datetime, kind: str, random: Random) -> Values:
    expected = created + timedelta(days=45 + int(60 * random.random()))
    what = (
        "first contract"
        if kind == "newbusiness"
        else _pick(random, ("frame contract", "extension", "new module"))
    )
    return [
        ("dealname", created, f"{account.number} {what}"),
        ("pipeline", created, "default"),
        ("dealstage", created, STAGES[0]),
        ("dealtype", created, kind),
        ("amount", created, str(_amount(account, random))),
        ("deal_currency_code", created, "CNY"),
        ("closedate", created, _text(expected)),
        ("hs_is_closed_won", created, "false"),
        ("hs_analytics_source", created, _pick(random, CHANNELS)),
    ]


def _amount(account: _Account, random: Random) -> int:
    size = account.customer.size if account.customer else 3.0
    return 100 * int(size * (20 + 400 * random.random() * random.random()) + 20)


def _moved(at: datetime, stage: str) -> Values:
    values: Values = [("dealstage", at, stage)]
    if stage in ("closedwon", "closedlost"):
        values.append(("closedate", at, _text(at)))
    if stage == "closedwon":
        values.append(("hs_is_closed_won", at, "true"))
    return values


def _tickets(known: list[_Account], random: Random) -> list[Record]:
    found = []
    for account in known:
        if account.customer is None:
            continue
        usual = 0.039 + 0.04 * min(1.0, account.customer.size / 15)  # a week
        for week in range(account.since, account.until + 1, 7):
            day = week + 7 * random.random()
            is_troubled = account.is_troubled(day)
            if random.random() < usual * (4.5 if is_troubled else 1):
                found.append(_ticket(account, day, is_troubled, random))
    return found


def _ticket(account: _Account, day: float, is_troubled: bool, random: Random) -> Record:
    created = _office_hour(day, random)
    gravity = _weighted(random, TROUBLE_GRAVITY if is_troubled else USUAL_GRAVITY)
    values: Values = [
        ("subject", created, _pick(random, SUBJECTS)),
        ("hs_ticket_priority", created, PRIORITIES[gravity]),
        ("hs_pipeline_stage", created, NEW),
    ]
    at = created + timedelta(hours=1 + int(30 * random.random()))
    values.append(("hs_pipeline_stage", at, WAITING_ON_US if random.random() < 0.6 else WAITING_ON_THEM))
    if gravity < 3 and random.random() < (0.25 if is_troubled else 0.06):  # it gets worse
        values.append(("hs_ticket_priority", at + timedelta(hours=5), PRIORITIES[gravity + 1]))
    takes = (1 + 9 * random.random() * random.random()) * (3 if is_troubled else 1)
    is_left_open = random.random() < (0.2 if is_troubled else 0.03)
    if not is_left_open:
        closed = at + timedelta(days=takes)
        values += [("hs_pipeline_stage", closed, CLOSED), ("closed_date", closed, _text(closed))]
    number = account.number if random.random() >= UNASSIGNED_SHARE else None
    return _record("tickets", number, created, values)


def _answers(known: list[_Account], random: Random) -> list[Record]:
    found = []
    for account in known:
        if account.customer is None or random.random() >= SURVEYED_SHARE:
            continue
        liking = 6.5 + 4 * random.random()
        day = account.since + 30 + SURVEY_DAYS * random.random()
        while day <= account.until:
            score = liking + 2.4 * (random.random() - 0.5) - (3.5 if account.is_troubled(day) else 0)
            found.append(_answer(account, day, min(10, max(0, int(score))), random))
            day += SURVEY_DAYS * (0.85 + 0.3 * random.random())
    return found


def _answer(account: _Account, day: float, score: int, random: Random) -> Record:
    at = _office_hour(day, random)
    values: Values = [
        ("hs_survey_type", at, "NPS"),
        ("hs_value", at, str(score)),
        ("hs_submission_timestamp", at, _text(at)),
    ]
    return _record("feedback_submissions", account.number, at, values)


def _record(
    kind: str, account: str | None, created: datetime, values: Values, archived: datetime | None = None
) -> Record:
    """Return a record with what was set before END and before it was archived, oldest first."""
    archived = archived if archived and archived < END else None
    past = sorted((value for value in values if value[1] < (archived or END)), key=lambda value: value[1])
    return Record(kind, account, created, tuple(past), archived)


def _office_hour(day: float, random: Random) -> datetime:
    """Return a moment of that day (0 = FIRST_DAY) at work, or of the Monday after it."""
    date = FIRST_DAY + timedelta(days=int(day))
    if date.weekday() >= 5:
        date += timedelta(days=7 - date.weekday())
    minute = 9 * 60 + int(9 * 60 * random.random())
    at = datetime(date.year, date.month, date.day, minute // 60, minute % 60, tzinfo=SHANGHAI)
    return at + timedelta(seconds=int(60 * random.random()))


def _text(moment: datetime) -> str:
    """Return a moment as HubSpot writes one: UTC, milliseconds, Z."""
    utc = moment.astimezone(UTC)
    return utc.strftime("%Y-%m-%dT%H:%M:%S.") + f"{utc.microsecond // 1000:03d}Z"


def _weighted(random: Random, shares: tuple[float, ...]) -> int:
    choice = random.random()
    for place, share in enumerate(shares[:-1]):
        if choice < share:
            return place
        choice -= share
    return len(shares) - 1


def _pick(random: Random, values: tuple[str, ...]) -> str:
    return values[int(len(values) * random.random())]
