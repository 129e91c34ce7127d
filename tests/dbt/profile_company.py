"""A small company whose accounts stand on both sides of every limit of the operating lists, and plain counts of it."""

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal

from psycopg.types.json import Jsonb

from include.sources.loads import bind_company, landing
from include.warehouse.connect import connect
from tests.conftest import Warehouse
from tests.dbt.raw_rows import CURRENCY, TIMEZONE, Event, Events, Line, Orders, Version, at, land_versions

AS_OF = date(2026, 6, 30)
FILES = "files "
"""What marks the id of an account whose CRM are files, not HubSpot."""
WORDS = {
    "decision maker": ("DECISION_MAKER",),
    "user": ("END_USER", "USER"),
    "influencer": ("INFLUENCER", "CHAMPION"),
}
MESSAGES = {
    "decision maker": ("ROI report", "executive meeting"),
    "user": ("training", "feedback session"),
    "influencer": ("expert board", "roadmap workshop"),
}


@dataclass(frozen=True)
class Contact:
    """A contact: the words of its roles as HubSpot joins them, and the days it came, changed and went."""

    contact_id: str
    company: str
    roles: str | None
    opted_out: bool
    created: date
    opts_out_on: date | None = None
    archived_on: date | None = None


@dataclass(frozen=True)
class Contract:
    """A contract; `account_key` is `hubspot:<id>` or the customer's number."""

    contract_id: str
    account_key: str
    sent: date
    signed: date | None
    starts: date
    ends: date
    value: Decimal
    renews: str | None = None


@dataclass(frozen=True)
class Referral:
    """A referral, both accounts by customer number."""

    referral_id: str
    account: str
    referred: str
    day: date


@dataclass
class Company:
    """What was landed: the CRM id and owner of each account, and its records."""

    crm_ids: dict[str, str] = field(default_factory=dict)
    contacts: list[Contact] = field(default_factory=list)
    contracts: list[Contract] = field(default_factory=list)
    referrals: list[Referral] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    nps: dict[str, list[tuple[date, int]]] = field(default_factory=dict)
    """Each account's answers to NPS surveys, in the order of their days."""

    def first_order(self, account: str) -> date | None:
        """Return the day of the account's first sale up to AS_OF; None without one."""
        days = [line.day for line in self.lines if line.customer_id == account and line.day <= AS_OF]
        return min(days) if days else None


def ago(days: int) -> date:
    """Return the day so many days before AS_OF."""
    return AS_OF - timedelta(days=days)


def make(seed: int) -> Company:
    """Return a company of 40 customers, of which 30 are in the CRM, and 6 prospects of the CRM alone."""
    chance = random.Random(seed)
    company = Company()
    for number in range(40):
        account = f"c{number:02}"
        if number < 30:
            company.crm_ids[account] = str(100 + number)
        first = chance.choice([20, 100, 300, 400, 900, 1200])
        for order in range(chance.choice([1, 2, 8])):
            day = ago(max(0, first - order * chance.choice([5, 30, 60])))
            amount = Decimal(chance.choice([500, 9_000, 120_000]))
            company.lines.append(Line(f"{account}-{order}", f"o{account}-{order}", account, at(day), amount))
        if number < 28:
            for place in range(chance.choice([0, 1, 2, 4])):
                roles = [
                    chance.choice(words) for words in WORDS.values() if chance.random() < 0.4
                ] + chance.choice([[], ["BLOCKER"], ["END_USERS"]])
                company.contacts.append(
                    Contact(
                        f"k{account}-{place}",
                        str(100 + number),
                        ";".join(roles) or None,
                        chance.random() < 0.3,
                        ago(chance.choice([-1, 0, 1, 50])),
                        opts_out_on=chance.choice([None, None, ago(0), ago(-1)]),
                        archived_on=chance.choice([None, None, None, ago(0), ago(-1)]),
                    )
                )
    for order in range(8):  # drawn into the hold-out group by their names: one of high value, one long gone
        company.lines.append(Line(f"x{order}", f"ox{order}", "c49", at(ago(9 * order)), Decimal(90_000)))
    company.lines.append(Line("y", "oy", "c59", at(ago(500)), Decimal(700)))
    for place, waits in enumerate((0, 2, 3, 180, 181)):
        company.contracts.append(_contract(f"w{place}", "c00", sent=ago(waits), signed=None))
    company.contracts.append(_contract("w-signs-later", "hubspot:101", sent=ago(10), signed=ago(-1)))
    company.contracts.append(_contract("w-signs-today", "hubspot:101", sent=ago(10), signed=ago(0)))
    company.contracts.append(_contract("w-sent-later", "hubspot:101", sent=ago(-1), signed=None))
    for place, left in enumerate((-1, 0, 60, 61)):
        account = f"c{30 + place}"
        company.contracts.append(_contract(f"e{place}", account, ago(370), ago(369), ends=ago(-left)))
    followed = _contract("e-followed", "c34", ago(370), ago(369), ends=ago(-10))
    waiting = _contract("e-waiting", "c35", ago(370), ago(369), ends=ago(-10))
    company.contracts += [
        followed,
        _contract("e-next", "c34", ago(5), ago(4), ends=ago(-375), renews="e-followed"),
        waiting,
        _contract("e-next-unsigned", "c35", ago(5), None, ends=ago(-375), renews="e-waiting"),
    ]
    for place, since in enumerate((89, 90)):
        new = f"n{place}"
        company.lines.append(Line(new, f"o{new}", new, at(ago(since)), Decimal(1000)))
        company.referrals.append(Referral(f"r{place}", "c02", new, ago(since + 20)))
    company.lines.append(Line("n2", "on2", "n2", at(ago(50)), Decimal(1000)))
    company.contracts.append(
        _contract("fee", "n2", ago(60), ago(59), starts=ago(50), ends=ago(-679), value=Decimal(73_000))
    )
    company.referrals += [
        Referral("r2", "c03", "n2", ago(60)),
        Referral("r2-second", "c04", "n2", ago(55)),
        Referral("r-after", "c05", "n3", ago(10)),
        Referral("r-later", "c05", "n4", ago(-1)),
    ]
    company.lines.append(Line("n3", "on3", "n3", at(ago(20)), Decimal(1000)))
    company.lines.append(Line("n4", "on4", "n4", at(ago(-2)), Decimal(1000)))
    for place, last in enumerate((1095, 1096)):
        company.lines.append(Line(f"g{place}", f"og{place}", f"g{place}", at(ago(last)), Decimal(1000)))
    for place, last in enumerate((29, 30)):  # one order in 90 days after three
        for day in (last, 100, 110, 120):
            name = f"d{place}"
            company.lines.append(Line(f"{name}-{day}", f"o{name}-{day}", name, at(ago(day)), Decimal(800)))
    for place, since in enumerate((30, 31)):
        company.crm_ids[f"t{place}"] = str(200 + place)
        company.events += [
            Event(f"t{place}-{day}", f"t{place}", at(ago(day)), session_id=f"s{day}") for day in (since, 3, 0)
        ]
    company.crm_ids["c39"] = FILES + "39"
    for number in range(30):
        days = sorted(chance.sample(range(-3, 200), 2), reverse=True)
        company.nps[f"c{number:02}"] = [(ago(day), chance.choice([3, 8, 9, 9, 10])) for day in days]
    for number in range(12):
        for day in chance.sample(range(60), 9):
            company.events.append(
                Event(
                    f"u{number}-{day}",
                    f"c{number:02}",
                    at(ago(day)),
                    chance.choice(["login", "page_view"]),
                    session_id=f"u{number}-{day}",
                )
            )
    for place in range(4):
        company.crm_ids[f"hubspot:{300 + place}"] = str(300 + place)
    return company


def _contract(
    contract_id: str,
    account_key: str,
    sent: date,
    signed: date | None,
    starts: date | None = None,
    ends: date | None = None,
    value: Decimal = Decimal("1200.50"),
    renews: str | None = None,
) -> Contract:
    starts = starts or sent + timedelta(days=1)
    return Contract(contract_id, account_key, sent, signed, starts, ends or ago(-400), value, renews)


def land(company: Company, as_of: date = AS_OF) -> None:
    """Land all of it, the rows of later days too: a build of AS_OF must not see them."""
    Orders().land(as_of, company.lines)
    Events().land(as_of, company.events)
    names = {crm_id: account for account, crm_id in company.crm_ids.items()}
    land_versions(
        as_of,
        "companies",
        [
            Version(
                crm_id,
                None if account.startswith("hubspot:") else account,
                at(ago(800)),
                {"name": f"Account {account}", "industry": "Steel" if int(crm_id) % 2 else "Retail"},
            )
            for crm_id, account in names.items()
            if not crm_id.startswith(FILES)
        ],
    )
    land_versions(
        as_of,
        "accounts",
        [
            Version("39", "c39", at(ago(since)), {"account_name": "Account c39", "owner": owner})
            for since, owner in ((100, "owner07"), (-1, "owner08"))
        ],
        "files",
    )
    versions = []
    for contact in company.contacts:
        said: dict[str, str | None] = {"hs_buying_role": contact.roles}
        if contact.opted_out:
            said["hs_email_optout"] = "true"
        versions.append(Version(contact.contact_id, contact.company, at(contact.created), dict(said)))
        if contact.opts_out_on and contact.opts_out_on > contact.created:
            said["hs_email_optout"] = "true"
            versions.append(Version(contact.contact_id, contact.company, at(contact.opts_out_on), dict(said)))
        if contact.archived_on and contact.archived_on > contact.created:
            moment = at(contact.archived_on, 20)
            versions.append(
                Version(contact.contact_id, contact.company, moment, dict(said), is_archived=True)
            )
    land_versions(as_of, "contacts", versions)
    _land_prospects(as_of)
    answers = [
        (f"{account}-{day}", company.crm_ids[account], day, {"hs_survey_type": "NPS", "hs_value": str(score)})
        for account, given in company.nps.items()
        for day, score in given
    ]
    land_versions(as_of, "feedback_submissions", [_answer(*answer) for answer in answers])
    land_records(
        as_of,
        "contracts",
        [
            (
                contract.contract_id,
                contract.account_key,
                at(moment),
                {
                    "value": str(contract.value),
                    "sent_at": at(contract.sent).isoformat(),
                    "signed_at": at(contract.signed).isoformat() if signed and contract.signed else None,
                    "starts_on": contract.starts.isoformat(),
                    "ends_on": contract.ends.isoformat(),
                    "renews_contract_id": contract.renews,
                },
            )
            for contract in company.contracts
            for signed, moment in ((False, contract.sent), (True, contract.signed))
            if moment
        ],
    )
    land_records(
        as_of,
        "referrals",
        [
            (
                referral.referral_id,
                referral.account,
                at(referral.day, 23) + timedelta(minutes=59, seconds=59, microseconds=999_999),
                {"referred_account_key": referral.referred, "referred_at": at(referral.day).isoformat()},
            )
            for referral in company.referrals
        ],
    )


def _land_prospects(as_of: date) -> None:
    """Land what is known of the prospects of the CRM: deals, and answers about needs and prices."""
    open_deal = {"dealstage": "contractsent", "amount": "50000", "deal_currency_code": CURRENCY}
    land_versions(
        as_of,
        "deals",
        [
            Version("d0", "300", at(ago(9)), dict(open_deal)),
            Version("d1", "301", at(ago(9)), open_deal | {"dealstage": "closedlost"}),
            Version("d3", "303", at(ago(-1)), dict(open_deal)),
        ],
    )
    said = [
        ("need-old", 20, "NEED", 2),
        ("need", 10, "NEED", 6),
        ("price", 10, "PRICE", 8),
        ("late", -1, "NEED", 9),
    ]
    land_versions(
        as_of,
        "feedback_submissions",
        [
            _answer(key, "301", ago(days), {"hs_survey_type": kind, "hs_value": str(score)})
            for key, days, kind, score in said
        ],
    )


def _answer(record_id: str, company: str, day: date, said: dict[str, str | None]) -> Version:
    return Version(record_id, company, at(day), said | {"hs_submission_timestamp": at(day).isoformat()})


def land_records(as_of: date, entity: str, rows: Iterable[tuple]) -> None:
    """Land versions of records of files that name an account: (record id, account key, valid from, properties)."""
    with landing("records", entity, as_of) as load:
        bind_company(load.connection, "Test company", TIMEZONE, CURRENCY)
        for record_id, account_key, valid_from, properties in rows:
            load.rows_in += 1
            load.rows_new += 1
            load.connection.execute(
                f"insert into raw_files.{entity} (load_id, load_seq, loaded_at, known_on, valid_from, record_id, "
                "account_key, is_archived, row_hash, properties) values (%s, %s, now(), %s, %s, %s, %s, false, '', %s)",
                [load.load_id, load.load_seq, as_of, valid_from, record_id, account_key, Jsonb(properties)],
            )


LIKELIEST = Decimal("0.04")
"""How likely the next best category is bought, of every second account."""
PROBABILITIES = (Decimal("0.2"), Decimal("0.199999"), Decimal("0.7"), Decimal("0.05"))
UNDER_CONTRACT = {"c01": 400, "c30": -1, "c31": 0, "c32": 60, "c33": 61, "c34": 375, "c35": 10, "n2": 679}
"""The accounts with a contract that is signed and not over for 30 days, and the days to the end of the last one."""
DUE = {account for account, days in UNDER_CONTRACT.items() if days + 31 <= 120}


def score(model: str, accounts: list[str], run_id: str = "run-1") -> None:
    """Write down that a run was scored by a model, the probabilities in turn."""
    with connect("scorer") as connection:
        connection.execute(
            "insert into ml.models select %s, %s, %s, 90, %s, %s, 9, 3, 'e', '{}', '[]', 'f', 'v', '', 's' "
            "on conflict do nothing",
            [f"m-{model}", model, *[AS_OF] * 3],
        )
        connection.execute(
            "insert into ml.runs (run_id, model, as_of_date, status, model_id, accounts, definition, horizon_days) "
            "values (%s, %s, %s, 'scored', %s, %s, %s, 90)",
            [
                run_id,
                model,
                AS_OF,
                f"m-{model}",
                len(accounts),
                "new category" if model == "upsell" else None,
            ],
        )
        for place, account in enumerate(accounts):
            connection.execute(
                "insert into ml.scores values (%s, %s, %s, %s, %s, %s, %s, 'one', 'two', 'three', %s, %s, %s)",
                [
                    run_id,
                    model,
                    account,
                    AS_OF,
                    f"m-{model}",
                    PROBABILITIES[place % len(PROBABILITIES)],
                    place + 1,
                    place if model == "repurchase" else None,
                    "chairs" if model == "upsell" else None,
                    LIKELIEST if model == "upsell" and place % 2 else None,
                ],
            )


def upsell_chances(accounts: list[str]) -> dict[str, tuple[bool, str]]:
    """Return account → whether its probability is twice the mean or more, and what a list says of it; as `score` told."""
    told = {account: PROBABILITIES[place % len(PROBABILITIES)] for place, account in enumerate(accounts)}
    mean = sum(told.values()) / len(told)
    likeliest = {account: " (4.0 %)" if place % 2 else "" for place, account in enumerate(accounts)}
    return {
        account: (
            probability >= 2 * mean,
            f"Probability of a first order in a category new to it in 90 days: {100 * probability:.1f} %, "
            f"{probability / mean:.1f} times the mean of {100 * mean:.1f} %. "
            f"Likeliest category: chairs{likeliest[account]}. one.",
        )
        for account, probability in told.items()
    }


def churn_of(account: str, has_ordered: bool) -> tuple[str, str | None, str]:
    """Return what churn means for an account, which model tells of it and why none does, where both have scored."""
    a_model = "a model tells a probability, and its reasons"
    if account in DUE:
        return "contract lapse", "m-lapse", a_model
    if account in UNDER_CONTRACT:
        ends = AS_OF + timedelta(days=UNDER_CONTRACT[account])
        return "contract lapse", None, f"its contract runs until {ends} and cannot lapse in the next 120 days"
    if has_ordered:
        return "no order", "m-churn", a_model
    return "nothing", None, "it has not ordered: neither the model nor the rules speak of it"


def standing(company: Company) -> list[tuple[str, Contact, bool]]:
    """Return (CRM id, contact, whether it has opted out) of the contacts that stand at the end of AS_OF."""
    return [
        (
            contact.company,
            contact,
            contact.opted_out
            or (contact.opts_out_on is not None and contact.created < contact.opts_out_on <= AS_OF),
        )
        for contact in company.contacts
        if contact.created <= AS_OF
        and not (contact.archived_on and contact.created < contact.archived_on <= AS_OF)
    ]


def chains(company: Company) -> dict[tuple[str, str], tuple]:
    """Return (contacts, is_covered, message, format, reason) by account and role, counted contact by contact."""
    told: dict[tuple[str, str], tuple] = {}
    customers = {line.customer_id for line in company.lines if line.day <= AS_OF}
    for account in {*customers, *company.crm_ids}:
        for role, words in WORDS.items():
            if account not in company.crm_ids:
                told[account, role] = (None, None, None, None, "the CRM has no company for it")
                continue
            found = [
                contact
                for crm_id, contact, _ in standing(company)
                if crm_id == company.crm_ids[account] and set((contact.roles or "").split(";")) & set(words)
            ]
            missing = (None, None) if found else MESSAGES[role]
            told[account, role] = (len(found), bool(found), *missing, None)
    return told


def reach(company: Company) -> dict[str, bool | None]:
    """Return by account whether one of its contacts may be mailed; None where the CRM does not have it."""
    customers = {line.customer_id for line in company.lines if line.day <= AS_OF}
    return {
        account: None
        if account not in company.crm_ids
        else any(not out for crm_id, _, out in standing(company) if crm_id == company.crm_ids[account])
        for account in {*customers, *company.crm_ids}
    }


TAGS = (
    ("tier", "tier", "account_tiers"),
    ("segment", "segment", "account_segments"),
    ("dormant", "is_dormant::text", "account_tiers"),
    ("age", "age_stage", "account_lifecycle"),
)
"""Some of the tags, with the column and the mart that hold them for every date built."""


def check_tags(warehouse: Warehouse, as_of: date) -> None:
    """Hold each tag's date against all dates built, walked back one by one from the newest."""
    on_dates: dict[tuple[str, str], dict[date, str]] = {}
    for tag, column, table in TAGS:
        query = f"select as_of_date, account_id, {column} from marts.{table} where as_of_date <= %s"
        for day, account, value in warehouse.rows(query, as_of):
            on_dates.setdefault((account, tag), {})[day] = value
    found = warehouse.rows(
        "select account_id, tag, tag_value, set_on, as_of_date from marts.account_tags where as_of_date = %s",
        as_of,
    )
    names = [tag for tag, *_ in TAGS]
    assert {(account, tag) for account, tag, *_ in found if tag in names} == {
        key for key, values in on_dates.items() if as_of in values
    }
    for account, tag, value, set_on, day_of_row in found:
        assert day_of_row == as_of
        if tag in names:
            since = as_of
            for day, then in sorted(on_dates[account, tag].items(), reverse=True):
                if then != value:
                    break
                since = day
            assert set_on == since, (account, tag, value)
