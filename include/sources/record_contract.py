"""The records that files may hold beside orders and events: each entity's columns, and how a row becomes a version.

docs/contracts/records.md says the same in words; tests/unit/test_record_contract.py holds the two together.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

SOURCE = "records"
"""What the books call records from files, and their key in sources.yml."""
FILES = "files"
"""The CRM whose records are files, and the system their ids stand behind."""
MODIFIED_AT, IS_ARCHIVED = "modified_at", "is_archived"
SQL_TYPES = {
    "text": "text",
    "instant": "timestamptz",
    "day": "date",
    "number": "decimal(18, 4)",
    "money": "decimal(18, 2)",
    "flag": "boolean",
    "currency": "text",
}
"""Kind of a column → the DuckDB type its values are cast to."""
Kind = Literal["text", "instant", "day", "number", "money", "flag", "currency"]


@dataclass(frozen=True)
class Column:
    """A column of the contract. `required` must be mapped, and have a value in every row."""

    kind: Kind
    meaning: str
    unit: str = ""
    required: bool = False


@dataclass(frozen=True)
class Entity:
    """One entity of the contract. SQL in it is DuckDB's, over the columns.

    A row says since when it is true by `modified_at` or, where the entity is an event, by `since`: it is *dated*. Else
    it begins with the first of `created` that has a value, and what `steps` name holds from their day on.
    """

    name: str
    key: tuple[str, ...]
    """The columns that name a record; text, joined, is its record_id."""
    columns: Mapping[str, Column]
    is_crm: bool = False
    """Whether it is the CRM's own record: only the files of `crm: {system: files}` may hold it."""
    created: tuple[str, ...] = ()
    since: str | None = None
    steps: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """A column with a date → the columns that have a value only from that date on, itself among them."""
    owner: tuple[str, str] | None = None
    """The raw table's column that says whose the record is, and the column of the contract it is told by."""
    customer: str | None = None
    """The column that names the customer of the orders instead of, or beside, the CRM's account."""
    refused: tuple[tuple[str, str], ...] = ()
    """(reason, condition) of rows that are refused."""

    @property
    def table(self) -> str:
        """The raw table."""
        return f"raw_files.{self.name}"

    @property
    def money(self) -> tuple[str, ...]:
        """The columns that hold an amount in `currency`."""
        return tuple(name for name, column in self.columns.items() if column.kind == "money")

    @property
    def types(self) -> dict[str, str]:
        """The columns in their order, each with the DuckDB type its values are cast to."""
        return {name: SQL_TYPES[column.kind] for name, column in self.columns.items()}

    @property
    def required(self) -> tuple[str, ...]:
        """The columns that must be mapped and have a value."""
        return tuple(name for name, column in self.columns.items() if column.required)


def _id(meaning: str) -> Column:
    return Column("text", meaning, required=True)


def _text(meaning: str) -> Column:
    return Column("text", meaning)


ACCOUNT = _text("The CRM's id of the account it belongs to. Null is kept, and part of no account")
CUSTOMER = _text(
    "The customer it belongs to, as the orders name it; may stand beside account_id or in its place"
)
CREATED = Column("instant", "When the record was made in its system")
CURRENCY = Column("currency", "ISO 4217 code, capitals; null is the company's currency")
MASTER = {
    MODIFIED_AT: Column("instant", "Since when the row is true: its last change in its system"),
    IS_ARCHIVED: Column("flag", "Whether it is deleted or archived there; null is no"),
}
"""Columns that every entity has which is no event."""
BELONGS = ("company_record_id", "account_id")
NAMES_ACCOUNT = ("account_key", "account_id")

ENTITIES: dict[str, Entity] = {
    entity.name: entity
    for entity in (
        Entity(
            "customers",
            key=("customer_id",),
            created=("created_at",),
            steps={"merged_on": ("merged_on", "merged_into_customer_id")},
            columns={
                "customer_id": _id("The customer, as the orders name it"),
                "customer_name": _text("Its name"),
                "tax_id": _text("Its tax id, as it is written"),
                "domain": _text("Its internet domain"),
                "country": _text("Its country, as it is written"),
                "parent_customer_id": _text("The customer it is a part of"),
                "merged_into_customer_id": _text("The customer it goes by since merged_on"),
                "merged_on": Column("day", "First day on which it goes by the other", "date"),
                "is_internal": Column("flag", "Whether it is the company's own, or a test; null is no"),
                "created_at": CREATED,
                **MASTER,
            },
        ),
        Entity(
            "accounts",
            key=("account_id",),
            is_crm=True,
            created=("created_at",),
            owner=("account_number", "account_number"),
            columns={
                "account_id": _id("The CRM's own id of the account"),
                "account_number": _text(
                    "The orders' customer_id. Null is an account of its own, files:<account_id>"
                ),
                "account_name": _text("Its name"),
                "industry": _text("Its industry"),
                "size": _text("Its size, as the CRM classes it"),
                "country": _text("Its country, as it is written"),
                "domain": _text("Its internet domain"),
                "tax_id": _text("Its tax id, as it is written"),
                "owner": _text("Who of us looks after it: an id, no name"),
                "channel": _text("The channel it came by"),
                "parent_account_id": _text("The account it is a part of"),
                "merged_into_account_id": _text("The account it was merged into"),
                "is_internal": Column("flag", "Whether it is the company's own, or a test; null is no"),
                "created_at": CREATED,
                **MASTER,
            },
        ),
        Entity(
            "contacts",
            key=("contact_id",),
            is_crm=True,
            created=("created_at",),
            steps={"consented_at": ("consented_at",)},
            owner=BELONGS,
            columns={
                "contact_id": _id("The CRM's own id of the contact; no name, no address"),
                "account_id": ACCOUNT,
                "job_title": _text("Job title"),
                "buying_roles": _text(
                    "Roles in the decision, joined by ';', in capitals in the marts: DECISION_MAKER, USER, INFLUENCER …"
                ),
                "has_opted_out": Column(
                    "flag", "Whether the person wants no messages; null is not asked, and counts as no"
                ),
                "consented_at": Column("instant", "When the person agreed to messages"),
                "created_at": CREATED,
                **MASTER,
            },
        ),
        Entity(
            "opportunities",
            key=("opportunity_id",),
            is_crm=True,
            created=("created_at",),
            steps={"closed_at": ("closed_at", "stage", "stage_kind")},
            owner=BELONGS,
            columns={
                "opportunity_id": _id("The CRM's own id of the lead or opportunity"),
                "account_id": ACCOUNT,
                "opportunity_name": _text("Its name"),
                "opportunity_type": _text("lead, trial, new_business, expansion, or the CRM's own kinds"),
                "stage": _text("The stage it is in, as the CRM names it"),
                "stage_kind": _text(
                    "open, won or lost; null is what the policy deal_stages says of the stage"
                ),
                "channel": _text("The channel it came by"),
                "amount": Column("money", "What it is worth", "currency"),
                "currency": CURRENCY,
                "expected_close_on": Column("day", "When it is expected to close", "date"),
                "created_at": CREATED,
                "closed_at": Column("instant", "When it was won or lost; null while it is open"),
                **MASTER,
            },
            refused=(
                (
                    "unknown_stage_kind",
                    "stage_kind is not null and lower(stage_kind) not in ('open', 'won', 'lost')",
                ),
            ),
        ),
        Entity(
            "opportunity_stages",
            key=("opportunity_id",),
            is_crm=True,
            since="entered_at",
            columns={
                "opportunity_id": _id("The opportunity"),
                "stage": _id("The stage it entered, as the CRM names it"),
                "stage_kind": _text(
                    "open, won or lost; null is what the policy deal_stages says of the stage"
                ),
                "entered_at": Column("instant", "When it entered the stage", required=True),
            },
            refused=(
                (
                    "unknown_stage_kind",
                    "stage_kind is not null and lower(stage_kind) not in ('open', 'won', 'lost')",
                ),
            ),
        ),
        Entity(
            "tickets",
            key=("ticket_id",),
            is_crm=True,
            created=("opened_at",),
            steps={"resolved_at": ("resolved_at", "csat")},
            owner=BELONGS,
            columns={
                "ticket_id": _id("The system's own id of the ticket"),
                "account_id": ACCOUNT,
                "severity": _text("How grave it is; in capitals in the marts, where URGENT is the gravest"),
                "opened_at": Column("instant", "When it was opened", required=True),
                "resolved_at": Column("instant", "When it was resolved; null while it is open"),
                "csat": Column(
                    "number", "How content the customer was with it", "points of the survey's scale"
                ),
                **MASTER,
            },
            refused=(("resolved_before_opened", "resolved_at < opened_at"),),
        ),
        Entity(
            "survey_answers",
            key=("answer_id",),
            is_crm=True,
            since="answered_at",
            owner=BELONGS,
            columns={
                "answer_id": _id("The system's own id of the answer"),
                "account_id": ACCOUNT,
                "contact_id": _text("The contact who answered"),
                "ticket_id": _text("The ticket it is about"),
                "survey_type": _id("NPS, CSAT, or another survey's name; in capitals in the marts"),
                "score": Column(
                    "number", "The answer; of NPS a whole number from 0 to 10", "points", required=True
                ),
                "answered_at": Column("instant", "When it was given", required=True),
                IS_ARCHIVED: MASTER[IS_ARCHIVED],
            },
            refused=(
                (
                    "score_out_of_range",
                    "upper(survey_type) = 'NPS' and (score <> round(score) or score not between 0 and 10)",
                ),
            ),
        ),
        Entity(
            "contracts",
            key=("contract_id",),
            created=("sent_at", "signed_at"),
            steps={"signed_at": ("signed_at",)},
            owner=NAMES_ACCOUNT,
            customer="customer_id",
            columns={
                "contract_id": _id("The contract"),
                "account_id": ACCOUNT,
                "customer_id": CUSTOMER,
                "value": Column("money", "What it is worth over its whole term", "currency"),
                "currency": CURRENCY,
                "sent_at": Column("instant", "When it was sent to be signed"),
                "signed_at": Column("instant", "When it was signed; null while it waits"),
                "starts_on": Column("day", "First day of its term", "date"),
                "ends_on": Column("day", "Last day of its term", "date"),
                "renews_contract_id": _text("The contract it renews; null is a first one"),
                **MASTER,
            },
            refused=(
                ("ends_before_start", "ends_on < starts_on"),
                ("signed_before_sent", "signed_at < sent_at"),
            ),
        ),
        Entity(
            "referrals",
            key=("referral_id",),
            since="referred_at",
            owner=NAMES_ACCOUNT,
            customer="customer_id",
            columns={
                "referral_id": _id("The referral"),
                "account_id": _text("The CRM's id of the account that referred"),
                "customer_id": _text("That account as the orders name it; beside account_id or in its place"),
                "referred_account_id": _text("The CRM's id of the account that was referred"),
                "referred_customer_id": _text("That account as the orders name it"),
                "referred_at": Column("instant", "When it was referred", required=True),
                IS_ARCHIVED: MASTER[IS_ARCHIVED],
            },
        ),
        Entity(
            "campaign_spend",
            key=("spent_on", "channel", "campaign"),
            since="spent_on",
            columns={
                "spent_on": Column(
                    "day", "The day, or the first day of the month, it was spent for", "date", True
                ),
                "channel": _id("The channel, as opportunities name it"),
                "campaign": _text("The campaign; null is all of the channel"),
                "is_online": Column("flag", "Whether the channel is online; null is not known"),
                "amount": Column("money", "What was spent, 0 or more", "currency", True),
                "currency": CURRENCY,
            },
            refused=(("amount_negative", "amount < 0"),),
        ),
        Entity(
            "products",
            key=("product_id",),
            created=("created_at",),
            columns={
                "product_id": _id("The article's code, as order lines name it"),
                "product_name": _text("Its name"),
                "category": _text("Its category"),
                "module": _text("The module of a product family it is; what cross-selling offers"),
                "created_at": Column("instant", "Since when it is sold"),
                **MASTER,
            },
        ),
        Entity(
            "experiment_assignments",
            key=("experiment", "unit_id"),
            since="assigned_at",
            owner=NAMES_ACCOUNT,
            customer="customer_id",
            columns={
                "experiment": _id("The experiment"),
                "unit_id": _id("Who or what was assigned: an account, a user, a session, by its id"),
                "account_id": _text("The CRM's id of the account the unit belongs to"),
                "customer_id": _text("That account as the orders name it; beside account_id or in its place"),
                "variant": _id("The variant it sees"),
                "assigned_at": Column("instant", "When it was assigned", required=True),
            },
        ),
        Entity(
            "industries",
            key=("industry",),
            since="effective_from",
            columns={
                "industry": _id("The industry, as accounts name it"),
                "yearly_growth": Column("number", "Growth of its market in a year", "share: 0.15 is 15 %"),
                "effective_from": Column("day", "First day on which the figures hold", "date", True),
            },
        ),
    )
}
