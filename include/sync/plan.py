"""What a sync would tell the CRM: the published values against what the CRM last confirmed."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Any

import psycopg
from psycopg import sql

from include.errors import StratumError

# PostgreSQL's type ids (pg_type.oid) of the columns that can be told → the CRM's kind of property.
KINDS = {
    16: "bool",
    20: "number",
    21: "number",
    23: "number",
    25: "string",
    700: "number",
    701: "number",
    1042: "string",
    1043: "string",
    1082: "date",
    1700: "number",
}
READ_AT_ONCE = 5_000
HOLD_REASONS = ("key_is_null", "key_is_doubled", "not_in_crm", "record_is_doubled", "dead_letter")


@dataclass(frozen=True)
class Change:
    """One CRM record to update: property → new value, and property → what the CRM last confirmed.

    A property missing in `old` was never told by us: what the CRM holds there is not known.
    """

    account_id: str
    record_id: str
    values: dict[str, str | None]
    old: dict[str, str | None]


@dataclass(frozen=True)
class Held:
    """One row that is not sent, and the one reason why not."""

    account_id: str | None
    record_id: str | None
    reason: str


@dataclass
class Plan:
    """What one sync of a published run would do. queried = changes + held + unchanged."""

    run_id: str
    as_of: date
    kinds: dict[str, str]
    """CRM property → string, number, date or bool, by the type of its column."""
    queried: int = 0
    unchanged: int = 0
    changes: list[Change] = field(default_factory=list)
    held: list[Held] = field(default_factory=list)
    unresolved: int = 0
    """Records with an attempt that has no answer yet: a sync reads them back before it plans."""

    @property
    def held_reasons(self) -> Counter[str]:
        """Held rows by reason."""
        return Counter(held.reason for held in self.held)


def as_text(value: Any) -> str | None:
    """Return a value as the string the CRM is told, None where there is nothing to tell.

    Numbers are plain decimals without trailing zeros, dates YYYY-MM-DD, booleans true and false. An empty
    text counts as nothing: told to HubSpot it would clear the property.
    """
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float | Decimal):
        number = Decimal(str(value))
        if not number.is_finite():
            return None
        return f"{number.normalize():f}" if number else "0"
    if isinstance(value, date):
        return value.isoformat()
    return str(value)


def make_plan(
    connection: psycopg.Connection, target: str, fields: dict[str, str], run_id: str, as_of: date
) -> Plan:
    """Compare published.customer_360 with the ledger of `target`; `fields` maps CRM property → column.

    `target` is <system>:<connection>; an account whose CRM record is of another system is not in this one.

    Raises StratumError where a column is not there or of a type that cannot be told, or where another run
    was published meanwhile. Rows come in the order of account_id; memory grows with the changes only.
    """
    with connection.transaction():
        # One snapshot: pointer, values and ledger belong together.
        connection.execute("set transaction isolation level repeatable read")
        _check_pointer(connection, run_id)
        kinds = kinds_of(connection, fields)
        plan = Plan(run_id, as_of, kinds, unresolved=_unresolved(connection, target))
        with connection.cursor(name="plan") as rows:
            rows.itersize = READ_AT_ONCE
            rows.execute(_query(fields), [target.partition(":")[0], target, target])
            for row in rows:
                _add(plan, list(fields), row)
    return plan


def _check_pointer(connection: psycopg.Connection, run_id: str) -> None:
    row = connection.execute("select run_id from published.current_run").fetchone()
    if row is None or row[0] != run_id:
        raise StratumError(f"Another run than {run_id} was published while its sync began: sync again.")


def kinds_of(connection: psycopg.Connection, fields: dict[str, str]) -> dict[str, str]:
    """Return CRM field → string, number, date or bool; `fields` maps it to a column of published.customer_360.

    Raises StratumError where a column is not there or of a type that cannot be told.
    """
    described = connection.execute("select * from published.customer_360 limit 0").description or []
    types = {column.name: column.type_code for column in described}
    if missing := sorted({column for column in fields.values() if column not in types}):
        raise StratumError(
            f"The fields in sync.yml name {', '.join(missing)}, which published.customer_360 does not "
            f"have. Its columns: {', '.join(types)}."
        )
    if odd := sorted({column for column in fields.values() if types[column] not in KINDS}):
        raise StratumError(
            f"The fields in sync.yml name {', '.join(odd)}, whose type cannot be told to a CRM: "
            "map text, numbers, dates and booleans."
        )
    return {name: KINDS[types[column]] for name, column in fields.items()}


def _unresolved(connection: psycopg.Connection, target: str) -> int:
    row = connection.execute(
        "select count(distinct record_id) from sync.attempts where target = %s and status = 'open'", [target]
    ).fetchone()
    return row[0] if row else 0


def _query(fields: dict[str, str]) -> sql.Composed:
    columns = sql.SQL("").join(
        sql.SQL(", account.{}").format(sql.Identifier(column)) for column in fields.values()
    )
    return sql.SQL("""
        select
            account.account_id,
            account.own_record_id,
            count(*) over (partition by account.account_id),
            count(*) over (partition by account.own_record_id),
            failure.dead_at is not null,
            ledger.confirmed
            {columns}
        from (
            select
                customer.*,
                case when customer.crm_system = %s then nullif(customer.crm_record_id, '') end as own_record_id
            from published.customer_360 as customer
        ) as account
        left join sync.ledger as ledger
            on ledger.target = %s and ledger.record_id = account.own_record_id
        left join sync.failures as failure
            on failure.target = %s and failure.record_id = account.own_record_id
        order by account.account_id, account.own_record_id
    """).format(columns=columns)


def _add(plan: Plan, properties: list[str], row: tuple) -> None:
    account_id, record_id, same_account, same_record, is_dead, confirmed, *values = row
    plan.queried += 1
    if reason := _hold(account_id, record_id, same_account, same_record):
        plan.held.append(Held(account_id, record_id, reason))
        return
    old = confirmed or {}
    texts = {name: as_text(value) for name, value in zip(properties, values, strict=True)}
    # A null never overwrites what the CRM holds.
    wanted: dict[str, str | None] = {
        name: text for name, text in texts.items() if text is not None and old.get(name) != text
    }
    if not wanted:
        plan.unchanged += 1
        return
    if is_dead:
        plan.held.append(Held(account_id, record_id, "dead_letter"))
        return
    told_before = {name: old[name] for name in wanted if name in old}
    plan.changes.append(Change(account_id, record_id, wanted, told_before))


def _hold(account_id: str | None, record_id: str | None, same_account: int, same_record: int) -> str | None:
    """Return why a row can never be sent as it is, or None."""
    if account_id is None:
        return "key_is_null"
    if same_account > 1:
        return "key_is_doubled"
    if record_id is None:
        return "not_in_crm"
    return "record_is_doubled" if same_record > 1 else None
