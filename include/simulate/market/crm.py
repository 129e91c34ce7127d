"""What the CRM recorded of a block of accounts: records, their stages, contracts, tickets, answers, referrals."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from include.simulate.market.orders import instants, labels, money, named
from include.simulate.market.population import (
    CHANNELS,
    COUNTRIES,
    EXPERIMENT_WEEK,
    INDUSTRIES,
    TRIAL_WEEKS,
    Floats,
    Ints,
    Population,
)
from include.simulate.market.scales import DAYS, WEEKS, stream

Bools = NDArray[np.bool_]

OWNERS = 40
SIZES = ("small", "medium", "enterprise")
SIZE_BOUNDS = (1.2, 5.0)
NO_NUMBER_RATE = 0.02
"""Of accounts: nobody wrote the ERP's number into the CRM."""
DOUBLED_RATE = 0.01
"""Of accounts: a second record of the same company, with its domain and without its number."""
TEST_RATE = 0.003
"""Of accounts: the company's own, to try things with."""
PARENT_RATE = 0.04
ROLES = ("decision_maker", "user", "influencer")
ROLE_SHARES = (0.25, 0.50, 0.25)
OPT_OUT_RATE = 0.08
STAGES = ("lead", "qualified", "proposal", "negotiation", "won", "lost")
WON, LOST = 4, 5
TYPES = ("new_business", "trial", "expansion")
SEVERITIES = ("low", "medium", "high", "urgent")
TICKET_RATE = 0.03
"""Tickets of a week at engagement 0; low engagement brings more and graver ones."""
SURVEY_WEEKS = 26
ANSWERS_RATE, ANSWERS_BY = 0.6, 0.8
"""Of those asked who answer at engagement 0 and above, and what each unit below adds to the logarithm: who has turned
away seldom does."""
NPS_AT, NPS_BY, NPS_ACCOUNT, NPS_PERSON = 8.6, 1.7, 0.7, 1.1
"""Score at engagement 0, what a unit of engagement adds, and the standard deviations between accounts and persons.
Ours, so that the company's NPS comes out between 20 and 60."""
CSAT_AT, CSAT_BY, CSAT_SPREAD = 4.5, 0.5, 0.7
"""The same of tickets, 1 to 5: between 70 and 90 % are content (4 and 5)."""
LEGAL_RATE = 0.3
"""Of customers: the ERP writes the name in capitals and with the legal form behind it."""
NO_TAX_ID_RATE, NO_DOMAIN_RATE = 0.1, 0.4
"""Of customers: nobody wrote it into the ERP."""
CONTRACT_SHARE = 0.3
"""Of accounts: those that buy under yearly contracts, the larger the likelier."""
CONTRACT_YEARS, CONTRACT_WEEKS = 3, 52
"""Contracts of an account at most, one after the other, and the weeks of each;"""
CONTRACT_DAYS = 7 * CONTRACT_WEEKS
DECIDES_WEEKS = 8
"""so long before the end of one the account decides on the next: it lets it lapse where it has turned away by then."""
NEVER = 10_000
"""A week after any calendar."""
SIGNING_HOURS = 72
"""Median wait for a signature; an unsigned contract waits still."""


def accounts_table(accounts: Population, codes: pa.Array, seed: int, block: int) -> pa.Table:
    """Return the CRM's accounts, doubled and test ones included. One row per record.

    Columns: crm_id, account_no (null: not written down), name, industry, size, country, domain, tax_id, owner,
    channel, parent_crm_id (null: none), is_test, created_at.
    """
    random = stream(seed, block, 30)
    count = len(accounts.number)
    doubled = np.flatnonzero(random.random(count) < DOUBLED_RATE)
    rows = np.concatenate([np.arange(count), doubled])
    is_second = np.arange(len(rows)) >= count
    number = accounts.number[rows]
    missing = is_second | (random.random(len(rows)) < NO_NUMBER_RATE) | ~accounts.converts[rows]
    parent = (random.random(len(rows)) < PARENT_RATE) & (accounts.number[rows] % 10 != 0)
    created = accounts.begins[rows] * 7 - 1 - random.integers(0, 60, len(rows))
    return pa.table(
        {
            "crm_id": crm_ids(number, is_second),
            "account_no": pa.DictionaryArray.from_arrays(
                pa.array(rows.astype(np.int32), mask=missing), codes
            ),
            "name": labels("Account ", number, 7),
            "industry": named(accounts.industry[rows], INDUSTRIES),
            "size": named(np.digitize(accounts.size[rows], SIZE_BOUNDS), SIZES),
            "country": named(accounts.country[rows], COUNTRIES),
            "domain": domains(number),
            "tax_id": tax_ids(number),
            "owner": labels("owner", random.integers(0, OWNERS, len(rows)), 2),
            "channel": named(accounts.channel[rows], CHANNELS),
            "parent_crm_id": _masked(crm_ids(number // 10 * 10, np.zeros(len(rows), dtype=bool)), ~parent),
            "is_test": pa.array(random.random(len(rows)) < TEST_RATE),
            "created_at": instants(created, np.full(len(rows), 9 * 3600)),
        }
    )


def customers(accounts: Population, codes: pa.Array, seed: int, block: int) -> pa.Table:
    """Return the ERP's customer master: customer_no, name, tax_id, domain (null: not written down).

    One row per account that became a customer.
    """
    random = stream(seed, block, 37)
    count = len(accounts.number)
    names = labels("Account ", accounts.number, 7)
    legal = _joined(pa.compute.utf8_upper(names), " LTD.")
    table = pa.table(
        {
            "customer_no": codes,
            "name": pa.compute.if_else(pa.array(random.random(count) < LEGAL_RATE), legal, names),
            "tax_id": _masked(tax_ids(accounts.number), random.random(count) < NO_TAX_ID_RATE),
            "domain": _masked(domains(accounts.number), random.random(count) < NO_DOMAIN_RATE),
        }
    )
    return table.filter(pa.array(accounts.converts))


def domains(number: Ints) -> pa.Array:
    """Return the internet domains of accounts."""
    return _joined(labels("account", number, 7), ".example")


def tax_ids(number: Ints) -> pa.Array:
    """Return the tax ids of accounts."""
    return labels("T", number * 7919 % 10_000_019, 10)


def crm_ids(number: Ints, is_second: Bools) -> pa.Array:
    """Return the CRM's own ids of accounts, and of their second records."""
    return labels("", 1_000_000 + number * 2 + is_second, 8)


def contacts(accounts: Population, seed: int, block: int) -> pa.Table:
    """Return the contacts: contact_id, crm_id, role, opted_out, created_at. One row per contact."""
    random = stream(seed, block, 31)
    whose, place, created = _people(accounts, random)
    role = random.choice(len(ROLES), len(whose), p=ROLE_SHARES)
    table = pa.table(
        {
            "contact_id": labels("K", _person_numbers(accounts, whose, place), 9),
            "crm_id": _of(accounts, whose),
            "role": named(role, ROLES),
            "opted_out": pa.array(random.random(len(whose)) < OPT_OUT_RATE),
            "created_at": instants(created, np.full(len(whose), 10 * 3600)),
        }
    )
    return table.filter(pa.array(created < DAYS))


def _people(accounts: Population, random: np.random.Generator) -> tuple[Ints, Ints, Ints]:
    """Return of each contact its account's place in the block, its place in the account, and the day it was created."""
    count = 1 + random.poisson(np.minimum(accounts.size, 8) * 0.7)
    whose = np.repeat(np.arange(len(count)), count)
    place = np.arange(len(whose)) - np.repeat(np.cumsum(count) - count, count)
    created = accounts.begins[whose] * 7 + random.integers(0, 120, len(whose)) * (place > 0)
    return whose, place, created


def _person_numbers(accounts: Population, whose: Ints, place: Ints) -> Ints:
    return accounts.number[whose] * 64 + np.minimum(place, 63)


def _answers(random: np.random.Generator, engagement: Floats) -> Bools:
    """Return who of those asked answers, by engagement."""
    return random.random(len(engagement)) < ANSWERS_RATE * np.exp(ANSWERS_BY * np.minimum(engagement, 0))


def opportunities(accounts: Population, seed: int, block: int) -> tuple[pa.Table, pa.Table]:
    """Return the opportunities, and the stages each went through.

    Opportunities: opportunity_id, crm_id, type, stage (the last), channel, amount, created_at, closed_at (null:
    open). One row per opportunity. Stages: opportunity_id, stage, entered_at. One row per stage entered.
    """
    random = stream(seed, block, 32)
    fresh = np.flatnonzero(accounts.begins > 0)
    expands = np.argwhere((accounts.adopts > 0) & (accounts.adopts < WEEKS) & accounts.converts[:, None])
    whose = np.concatenate([fresh, expands[:, 0]])
    kind = np.concatenate([accounts.has_trial[fresh].astype(np.int64), np.full(len(expands), 2)])
    decided = np.concatenate(
        [accounts.begins[fresh] + TRIAL_WEEKS * accounts.has_trial[fresh], accounts.adopts[tuple(expands.T)]]
    )
    # What was offered in vain: as often as what was taken, where engagement is low.
    in_vain = random.random(len(whose)) < 0.5
    whose = np.concatenate([whose, whose[in_vain]])
    is_won = np.concatenate([accounts.converts[whose[: len(kind)]], np.zeros(in_vain.sum(), dtype=bool)])
    decided = np.concatenate([decided, np.minimum(decided[in_vain] + 13, WEEKS + 12)])
    kind = np.concatenate([kind, np.full(in_vain.sum(), 2)])
    closed = decided * 7 + random.integers(0, 5, len(whose))
    length = 14 + random.integers(0, 60, len(whose))
    number = accounts.number[whose] * 64 + _place(whose)
    fractions = np.asarray([0.0, 0.25, 0.5, 0.75, 1.0])
    entered = (closed[:, None] - length[:, None] * (1 - fractions)).astype(np.int64)
    stage = np.tile(np.arange(5), (len(whose), 1))
    stage[:, 4] = np.where(is_won, WON, LOST)
    seen = entered < DAYS
    last = seen.sum(axis=1) - 1
    kept = last >= 0
    ids = labels("D", number, 10)
    table = pa.table(
        {
            "opportunity_id": ids,
            "crm_id": _of(accounts, whose),
            "type": named(kind, TYPES),
            "stage": named(stage[np.arange(len(whose)), last], STAGES),
            "channel": named(accounts.channel[whose], CHANNELS),
            "amount": money(np.exp(random.standard_normal(len(whose))) * accounts.size[whose] * 900_000),
            "created_at": instants(entered[:, 0], np.full(len(whose), 11 * 3600)),
            "closed_at": _masked(instants(closed, np.full(len(whose), 16 * 3600)), closed >= DAYS),
        }
    ).filter(pa.array(kept))
    of, step = np.nonzero(seen)
    stages = pa.table(
        {
            "opportunity_id": ids.take(pa.array(of)),
            "stage": named(stage[of, step], STAGES),
            "entered_at": instants(entered[of, step], np.where(step == 4, 16 * 3600, 11 * 3600)),
        }
    )
    return table, stages


def contracts(accounts: Population, seed: int, block: int) -> pa.Table:
    """Return yearly contracts, one row per contract sent.

    Columns: contract_id, crm_id, customer_no, value, sent_at, signed_at (null: waits), starts_on, ends_on.
    A contract is renewed where the account has not turned away DECIDES_WEEKS before its end.
    """
    random = stream(seed, block, 33)
    holds, value, first = _contracted(accounts, random)
    parts = []
    for year in range(CONTRACT_YEARS):
        start = first + CONTRACT_WEEKS * year
        sent = start * 7 - 10
        renews = holds & (sent < DAYS) & ((year == 0) | (accounts.turns > start - DECIDES_WEEKS))
        holds = renews
        whose = np.flatnonzero(renews)
        hours = SIGNING_HOURS * np.exp(0.9 * random.standard_normal(len(whose)))
        signed = sent[whose] * 86_400 + 14 * 3600 + (hours * 3600).astype(np.int64)
        begins = start[whose]
        parts.append(
            pa.table(
                {
                    "contract_id": labels("V", accounts.number[whose] * 4 + year, 9),
                    "crm_id": _of(accounts, whose),
                    "customer_no": labels("C", accounts.number[whose], 7),
                    "value": money(value[whose] * 1.04**year),
                    "sent_at": instants(sent[whose], np.full(len(whose), 14 * 3600)),
                    "signed_at": _masked(
                        instants(signed // 86_400, signed % 86_400), signed >= DAYS * 86_400
                    ),
                    "starts_on": instants(begins * 7, np.zeros(len(whose), dtype=np.int64)).cast(pa.date32()),
                    "ends_on": instants(
                        begins * 7 + CONTRACT_DAYS - 1, np.zeros(len(whose), dtype=np.int64)
                    ).cast(pa.date32()),
                }
            )
        )
    return pa.concat_tables(parts)


def _contracted(accounts: Population, random: np.random.Generator) -> tuple[NDArray[np.bool_], Floats, Ints]:
    """Return who buys under contracts, what the first year of one is worth in fen, and the week the first began."""
    count = len(accounts.number)
    holds = accounts.converts & (random.random(count) < np.minimum(0.95, CONTRACT_SHARE * accounts.size**0.5))
    value = np.exp(0.4 * random.standard_normal(count)) * accounts.size * 2_400_000
    first = np.where(accounts.begins > 0, accounts.begins, random.integers(0, 52, count) - 52)
    return holds, value, first


def contract_weeks(accounts: Population, seed: int, block: int) -> Ints:
    """Return by account and year the week in which a contract of `contracts` began; NEVER where there is none."""
    holds, _, first = _contracted(accounts, stream(seed, block, 33))
    weeks = []
    for year in range(CONTRACT_YEARS):
        start = first + CONTRACT_WEEKS * year
        holds = holds & (start * 7 - 10 < DAYS) & ((year == 0) | (accounts.turns > start - DECIDES_WEEKS))
        weeks.append(np.where(holds, start, NEVER))
    return np.stack(weeks, axis=1)


def tickets(accounts: Population, seed: int, block: int) -> pa.Table:
    """Return the tickets: ticket_id, crm_id, severity, opened_at, resolved_at (null: open), csat (1-5, null).

    One row per ticket.
    """
    random = stream(seed, block, 34)
    there = accounts.session_rate + accounts.order_rate > 0
    rate = (
        TICKET_RATE
        * np.exp(-0.9 * accounts.engagement)
        * there
        * np.minimum(accounts.size, 5)[:, None] ** 0.3
    )
    count = random.poisson(np.minimum(rate, 3)).ravel()
    cell = np.repeat(np.arange(count.size), count)
    whose, week = cell // WEEKS, cell % WEEKS
    engagement = accounts.engagement[whose, week]
    grave = np.clip((random.random(len(cell)) * 3.2 - 0.5 * engagement).astype(np.int64), 0, 3)
    opened = week * 7 + random.integers(0, 7, len(cell))
    hours = np.exp(2.6 - 0.5 * engagement + 0.8 * random.standard_normal(len(cell)))
    second = 9 * 3600 + (8 * 3600 * random.random(len(cell))).astype(np.int64)
    resolved = opened * 86_400 + second + (hours * 3600).astype(np.int64)
    is_open = resolved >= DAYS * 86_400
    csat = np.clip(
        np.round(CSAT_AT + CSAT_BY * engagement + CSAT_SPREAD * random.standard_normal(len(cell))), 1, 5
    )
    silent = is_open | ~_answers(random, engagement)
    return pa.table(
        {
            "ticket_id": labels("Z", accounts.number[whose] * 512 + _place(whose), 10),
            "crm_id": _of(accounts, whose),
            "severity": named(grave, SEVERITIES),
            "opened_at": instants(opened, second),
            "resolved_at": _masked(instants(resolved // 86_400, resolved % 86_400), is_open),
            "csat": pa.array(csat.astype(np.int16), mask=silent),
        }
    )


def survey_answers(accounts: Population, seed: int, block: int) -> pa.Table:
    """Return the answers to NPS surveys, one row per answer: answer_id, crm_id, contact_id, kind, score (0-10), answered_at.

    All contacts of a customer are asked; the content answer more often, and those of one account answer alike.
    """
    random = stream(seed, block, 35)
    people, place, created = _people(accounts, stream(seed, block, 31))
    numbers = _person_numbers(accounts, people, place)
    tone = NPS_ACCOUNT * random.standard_normal(len(accounts.number))[people]
    parts = []
    for wave, week in enumerate(range(SURVEY_WEEKS - 1, WEEKS, SURVEY_WEEKS)):
        engagement = accounts.engagement[people, week]
        is_asked = (accounts.begins[people] + 8 <= week) & accounts.converts[people] & (created <= week * 7)
        who = np.flatnonzero(is_asked & _answers(random, engagement))
        whose = people[who]
        noise = tone[who] + NPS_PERSON * random.standard_normal(len(who))
        score = np.clip(np.round(NPS_AT + NPS_BY * engagement[who] + noise), 0, 10)
        day = week * 7 + random.integers(0, 7, len(who))
        parts.append(
            pa.table(
                {
                    "answer_id": labels("Q", numbers[who] * 8 + wave, 9),
                    "crm_id": _of(accounts, whose),
                    "contact_id": labels("K", numbers[who], 9),
                    "kind": named(np.zeros(len(whose), dtype=np.int64), ("NPS",)),
                    "score": pa.array(score.astype(np.int16)),
                    "answered_at": instants(day, np.full(len(whose), 15 * 3600)),
                }
            )
        )
    return pa.concat_tables(parts)


def referrals(accounts: Population, seed: int, block: int) -> pa.Table:
    """Return who brought whom: referral_id, crm_id, referred_crm_id, both ERP numbers, referred_at. One row per referral.

    Engaged accounts refer more.
    """
    random = stream(seed, block, 36)
    brought = np.flatnonzero((accounts.channel == CHANNELS.index("referral")) & (accounts.begins > 0))
    week = accounts.begins[brought]
    # Of a few that were asked, the most engaged then.
    asked = random.integers(0, len(accounts.number), (len(brought), 6))
    warmth = np.where(
        accounts.begins[asked] < week[:, None], accounts.engagement[asked, week[:, None]], -np.inf
    )
    whose = asked[np.arange(len(brought)), warmth.argmax(axis=1)]
    known = warmth.max(axis=1) > -np.inf
    return pa.table(
        {
            "referral_id": labels("F", accounts.number[brought], 8),
            "crm_id": _of(accounts, whose),
            "referred_crm_id": _of(accounts, brought),
            "customer_no": labels("C", accounts.number[whose], 7),
            "referred_customer_no": labels("C", accounts.number[brought], 7),
            "referred_at": instants(week * 7, np.full(len(brought), 12 * 3600)),
        }
    ).filter(pa.array(known))


def assignments(accounts: Population, codes: pa.Array) -> pa.Table:
    """Return who sees which variant: experiment, account_no, variant, assigned_at. One row per account in it."""
    there = np.flatnonzero(accounts.converts & (accounts.begins < EXPERIMENT_WEEK))
    return pa.table(
        {
            "experiment": named(np.zeros(len(there), dtype=np.int64), ("price_comparison_page",)),
            "account_no": codes.take(pa.array(there)),
            "variant": named(accounts.is_treated[there].astype(np.int64), ("control", "treatment")),
            "assigned_at": instants(
                np.full(len(there), EXPERIMENT_WEEK * 7), np.zeros(len(there), dtype=np.int64)
            ),
        }
    )


def _of(accounts: Population, whose: Ints) -> pa.Array:
    return crm_ids(accounts.number[whose], np.zeros(len(whose), dtype=bool))


def _place(whose: Ints) -> Ints:
    """Return each row's place among the rows of its account, from 0."""
    order = np.argsort(whose, kind="stable")
    sorted_ = whose[order]
    starts = (
        np.flatnonzero(np.r_[True, sorted_[1:] != sorted_[:-1]])
        if len(whose)
        else np.zeros(0, dtype=np.int64)
    )
    place = np.arange(len(whose)) - np.repeat(starts, np.diff(np.r_[starts, len(whose)]))
    found = np.empty(len(whose), dtype=np.int64)
    found[order] = place
    return found


def _masked(values: pa.Array, mask: Bools) -> pa.Array:
    return pa.compute.if_else(pa.array(~mask), values, pa.scalar(None, values.type))


def _joined(values: pa.Array, ending: str) -> pa.Array:
    return pa.compute.binary_join_element_wise(values, ending, "")
