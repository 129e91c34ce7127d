"""The CRM of the demo's company as HubSpot would hold it: companies, contacts, deals, tickets, survey answers.

The same records as in crm.py, in HubSpot's words, each value with the moment it was set.
"""

from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from typing import Any

from include.sandbox.store import Account, Record, record_id_of, stamp
from include.simulate.market import crm
from include.simulate.market.orders import labels
from include.simulate.market.population import Population, populate
from include.simulate.market.scales import DEMO, DEMO_SEED

SHANGHAI = timezone(timedelta(hours=8))
"""The simulation's instants are of this zone and name none."""
BLOCK = 1
"""The demo's company is one block of accounts."""
STAGES = {
    "lead": "appointmentscheduled",
    "qualified": "qualifiedtobuy",
    "proposal": "presentationscheduled",
    "negotiation": "contractsent",
    "won": "closedwon",
    "lost": "closedlost",
}
CHANNELS = {
    "organic_search": "ORGANIC_SEARCH",
    "paid_search": "PAID_SEARCH",
    "referral": "REFERRALS",
    "trade_fair": "OFFLINE",
    "e_mail": "EMAIL_MARKETING",
    "partner": "OTHER_CAMPAIGNS",
}
ROLES = {"decision_maker": "DECISION_MAKER", "user": "END_USER", "influencer": "INFLUENCER"}
DEAL_TYPES = {"new_business": "newbusiness", "trial": "newbusiness", "expansion": "existingbusiness"}
NEW, CLOSED = "1", "4"
"""HubSpot's own stages of its support pipeline."""
EXPECTED_DAYS = 60
"""How long a deal is expected to take when it begins."""

Values = list[tuple[str, datetime, str]]


def accounts() -> list[Account]:
    """Return the companies, in the order that gives them their record ids."""
    return [
        Account(
            account_number=row["account_no"],
            name=row["name"],
            industry=row["industry"],
            country=row["country"],
            created_at=_moment(row["created_at"]),
            domain=row["domain"],
        )
        for row in _companies()
    ]


def records() -> list[Record]:
    """Return all other records by object type, then by time of creation."""
    company_ids = {row["crm_id"]: record_id_of(place) for place, row in enumerate(_companies())}
    made = _population()
    opportunities, stages = crm.opportunities(made, DEMO_SEED, BLOCK)
    tickets = crm.tickets(made, DEMO_SEED, BLOCK).to_pylist()
    kinds = {
        "contacts": [_contact(row) for row in crm.contacts(made, DEMO_SEED, BLOCK).to_pylist()],
        "deals": list(_deals(opportunities.to_pylist(), stages.to_pylist())),
        "tickets": [_ticket(row) for row in tickets],
        "feedback_submissions": [
            *(_answer(row) for row in crm.survey_answers(made, DEMO_SEED, BLOCK).to_pylist()),
            *(_satisfaction(row) for row in tickets if row["csat"] is not None),
        ],
    }
    found = []
    for kind, rows in kinds.items():
        dated = sorted(rows, key=lambda row: (row[1], row[0]))
        found += [
            Record(kind, None, created, tuple(values), company_id=company_ids[crm_id])
            for crm_id, created, values in dated
        ]
    return found


Made = tuple[str, datetime, Values]
"""A record to be: the CRM id of its account, when it was created, every value it had, oldest first."""


@lru_cache(maxsize=1)
def _population() -> Population:
    return populate(DEMO, DEMO_SEED, BLOCK, 0, DEMO.accounts)


@lru_cache(maxsize=1)
def _companies() -> list[dict[str, Any]]:
    made = _population()
    codes = labels("C", made.number, 7)
    rows = crm.accounts_table(made, codes, DEMO_SEED, BLOCK).to_pylist()
    return sorted(rows, key=lambda row: row["created_at"])


def _contact(row: dict[str, Any]) -> Made:
    created = _moment(row["created_at"])
    values: Values = [("hs_buying_role", created, ROLES[row["role"]])]
    if row["opted_out"]:
        values.append(("hs_email_optout", created, "true"))
    return row["crm_id"], created, values


def _deals(opportunities: list[dict[str, Any]], stages: list[dict[str, Any]]) -> Iterator[Made]:
    passed: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in stages:
        passed[row["opportunity_id"]].append(row)
    for row in opportunities:
        created = _moment(row["created_at"])
        values: Values = [
            ("dealname", created, f"{row['type']} {row['opportunity_id']}"),
            ("pipeline", created, "default"),
            ("dealtype", created, DEAL_TYPES[row["type"]]),
            ("amount", created, str(row["amount"])),
            ("deal_currency_code", created, "CNY"),
            ("closedate", created, stamp(created + timedelta(days=EXPECTED_DAYS))),
            ("hs_is_closed_won", created, "false"),
            ("hs_analytics_source", created, CHANNELS[row["channel"]]),
        ]
        for stage in sorted(passed[row["opportunity_id"]], key=lambda stage: stage["entered_at"]):
            entered = _moment(stage["entered_at"])
            values.append(("dealstage", entered, STAGES[stage["stage"]]))
            if stage["stage"] in ("won", "lost"):
                values.append(("closedate", entered, stamp(entered)))
            if stage["stage"] == "won":
                values.append(("hs_is_closed_won", entered, "true"))
        yield row["crm_id"], created, sorted(values, key=lambda value: value[1])


def _ticket(row: dict[str, Any]) -> Made:
    opened = _moment(row["opened_at"])
    values: Values = [
        ("subject", opened, f"Ticket {row['ticket_id']}"),
        ("hs_ticket_priority", opened, row["severity"].upper()),
        ("hs_pipeline_stage", opened, NEW),
    ]
    if row["resolved_at"] is not None:
        closed = _moment(row["resolved_at"])
        values += [("hs_pipeline_stage", closed, CLOSED), ("closed_date", closed, stamp(closed))]
    return row["crm_id"], opened, values


def _answer(row: dict[str, Any]) -> Made:
    return _survey(row["crm_id"], _moment(row["answered_at"]), row["kind"], row["score"])


def _satisfaction(row: dict[str, Any]) -> Made:
    """Return the answer to the question that follows a resolved ticket."""
    return _survey(row["crm_id"], _moment(row["resolved_at"]), "CSAT", row["csat"])


def _survey(crm_id: str, at: datetime, kind: str, score: int) -> Made:
    values: Values = [
        ("hs_survey_type", at, kind),
        ("hs_value", at, str(score)),
        ("hs_submission_timestamp", at, stamp(at)),
    ]
    return crm_id, at, values


def _moment(at: datetime) -> datetime:
    return at.replace(tzinfo=SHANGHAI)
