"""A company's accounts that pay by half-yearly contracts, which some of them let lapse, as rows to land."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal

import numpy as np
from psycopg.types.json import Jsonb

from include.sources.loads import bind_company, landing
from tests.dbt.raw_rows import CURRENCY, TIMEZONE, Event, Line, at
from tests.ml.world import FIRST, LAST

ACCOUNTS, SEED = 90, 13
TERM, SENT_BEFORE, GRACE, HORIZON = 182, 15, 30, 120
GIVES_UP, QUIET = 0.3, 70
"""How many do not renew a contract, and how many days before its end they stop ordering and logging in."""


@dataclass(frozen=True)
class Contract:
    """One contract as it was first sent; `signed` lies up to ten days after its start, so within the grace of the last."""

    contract_id: str
    account_id: str
    sent: date
    signed: date
    starts: date
    ends: date


def contracts() -> list[Contract]:
    """Return every contract that an account signs up to LAST, account by account in the order of their days."""
    random = np.random.default_rng(SEED)
    found = []
    for number in range(ACCOUNTS):
        starts, is_first = date(2024, 9, 1) + timedelta(days=int(random.integers(0, 180))), True
        while starts <= LAST and (is_first or random.random() >= GIVES_UP):
            sent = starts - timedelta(days=SENT_BEFORE)
            signed = sent + timedelta(days=int(random.integers(1, SENT_BEFORE + 10)))
            ends = starts + timedelta(days=TERM - 1)
            found.append(Contract(f"{number}-{starts}", f"K{number:03d}", sent, signed, starts, ends))
            starts, is_first = ends + timedelta(days=1), False
    return found


def last_days() -> dict[str, date]:
    """Return the day each account falls silent."""
    ends = {one.account_id: one.ends for one in contracts()}
    return {
        account: min(day, LAST) - timedelta(days=QUIET if day <= LAST else 0) for account, day in ends.items()
    }


def lines_of_contracts() -> list[Line]:
    """Return an order in every fortnight or so of each account from FIRST until it falls silent."""
    random, lines = np.random.default_rng(SEED + 1), []
    for account, last in last_days().items():
        day = FIRST
        while day <= last or day == FIRST:
            key = f"{account} {day}"
            lines.append(Line(key, key, account, at(day), Decimal(int(random.integers(50, 500)))))
            day += timedelta(days=int(random.integers(5, 25)))
    return lines


def events_of_contracts() -> list[Event]:
    """Return a login in every week of each account, from a week after FIRST until it falls silent."""
    return [
        Event(f"login {account} {week}", account, at(day), session_id=f"{account} {week}")
        for account, last in last_days().items()
        for week in range(1, 80)
        if (day := FIRST + timedelta(days=7 * week)) <= last
    ]


def held_on(day: date, known: Iterable[Contract]) -> dict[str, date]:
    """Return the accounts under a contract on a day, counted contract by contract, with the day the last one ends."""
    ends: dict[str, date] = {}
    for one in known:
        if one.signed <= day:
            ends[one.account_id] = max(one.ends, ends.get(one.account_id, one.ends))
    return {account: end for account, end in ends.items() if day <= end + timedelta(days=GRACE)}


def is_due(end: date, day: date) -> bool:
    """Whether the first day after the grace of a contract that ends then lies in the window after a day."""
    return end + timedelta(days=GRACE + 1) <= day + timedelta(days=HORIZON)


@dataclass(frozen=True)
class Version:
    """What the contract's system held of it from a day on."""

    contract: Contract
    valid_from: date
    is_signed: bool
    is_archived: bool = False


def as_sent_and_signed(until: date) -> Iterator[Version]:
    """Yield the versions of all contracts that began to hold by a day."""
    for one in contracts():
        for day, is_signed in ((one.sent, False), (one.signed, True)):
            if day <= until:
                yield Version(one, day, is_signed)


def overwritten_after(day: date) -> Iterator[Version]:
    """Yield what becomes of the contracts later: archived, their ends moved into the past, renewals dated back."""
    random = np.random.default_rng(SEED + 2)
    for place, one in enumerate(one for one in contracts() if one.sent <= day):
        later = day + timedelta(days=1 + int(random.integers(0, 40)))
        moved = one.ends + timedelta(days=int(random.integers(-150, 400)))
        other = Contract(
            one.contract_id, one.account_id, one.sent, one.signed, one.starts, max(moved, one.starts)
        )
        yield Version(other, later, is_signed=True, is_archived=place % 3 == 0)
        renewal = Contract(
            f"back-dated {one.contract_id}",
            one.account_id,
            one.ends,
            one.ends,
            one.ends,
            one.ends + timedelta(days=TERM),
        )
        yield Version(renewal, later, is_signed=True)


def land_contracts(as_of: date, versions: Iterable[Version], named_by: str = "") -> None:
    """Land versions of contracts from files, which name the account by the number the orders know it by.

    `named_by` stands before it: `files:` names the record of a CRM that is of files.
    """
    with landing("records", "contracts", as_of) as load:
        bind_company(load.connection, "Test company", TIMEZONE, CURRENCY)
        for one in versions:
            load.rows_in += 1
            load.rows_new += 1
            contract = one.contract
            properties = {
                "value": "36500",
                "sent_at": at(contract.sent).isoformat(),
                "signed_at": at(contract.signed, 0).isoformat() if one.is_signed else None,
                "starts_on": contract.starts.isoformat(),
                "ends_on": contract.ends.isoformat(),
            }
            load.connection.execute(
                "insert into raw_files.contracts (load_id, load_seq, loaded_at, known_on, valid_from, record_id, "
                "account_key, is_archived, row_hash, properties) values (%s, %s, now(), %s, %s, %s, %s, %s, '', %s)",
                [
                    load.load_id,
                    load.load_seq,
                    as_of,
                    at(one.valid_from),
                    contract.contract_id,
                    named_by + contract.account_id,
                    one.is_archived,
                    Jsonb(properties),
                ],
            )
