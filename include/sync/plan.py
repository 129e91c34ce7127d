"""What a sync would tell the CRM: the published values against what the CRM last confirmed.

All rows are compared in PostgreSQL; what is to be done lies in a temporary table of the connection and is read from
there a few thousand rows at a time, so that the memory of this process does not grow with the accounts.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from difflib import get_close_matches
from typing import Generic, TypeVar

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from include.errors import StratumError
from include.sync.mapping import SyncMapping
from include.sync.plan_sql import KINDS, MADE, PARTNERS, planned, suspects

READ_AT_ONCE = 5_000
HOLD_REASONS = (
    "key_is_null",
    "key_is_doubled",
    "not_in_crm",
    "record_is_doubled",
    "no_consent",
    "dead_letter",
    "not_ours",
    "not_empty",
    "record_is_gone",
    "create_field_is_null",
    "record_disagrees",
    "key_is_taken",
)
Item = TypeVar("Item")


@dataclass(frozen=True)
class Change:
    """One CRM record to update or to make: field → new value (None clears it), and field → what the CRM last confirmed.

    A field missing in `old` was never told by us: what the CRM holds there is not known. The `record_id` of one that is
    to be made stands for it in the books until the CRM has named it (`new:` and the account's id).
    """

    account_id: str
    record_id: str
    values: dict[str, str | None]
    old: dict[str, str | None]
    fingerprint: int | None = None
    """Of the published row, to be kept once the CRM confirmed `values`; None where more is wanted than is sent."""
    is_removal: bool = False
    """Whether the account is gone, or withdrew its consent: what we wrote is cleared."""
    by_key: bool = False
    """Whether the CRM has no record of the account that we know of: it is made by the account's key."""


@dataclass(frozen=True)
class Held:
    """One row that is not sent, and the one reason why not."""

    account_id: str | None
    record_id: str | None
    reason: str
    detail: str | None = None


class Rows(Generic[Item]):
    """The rows of one state in the plan's table, in its order; read anew each time they are gone through."""

    def __init__(
        self, connection: psycopg.Connection, state: str, columns: str, make: Callable[..., Item]
    ) -> None:
        self._connection = connection
        self._state = state
        self._query = (
            f"select number, {columns} from pg_temp.planned "  # noqa: S608 - columns are this module's own
            "where state = %s and number > %s order by number limit %s"
        )
        self._make = make

    def __len__(self) -> int:
        row = self._connection.execute(
            "select count(*) from pg_temp.planned where state = %s", [self._state]
        ).fetchone()
        return row[0] if row else 0

    def __iter__(self) -> Iterator[Item]:
        for some in self.chunks():
            for _, item in some:
                yield item

    def chunks(self) -> Iterator[list[tuple[int, Item]]]:
        """Yield the rows with their numbers, some at a time; a chunk is in memory, and the rest is not."""
        last = -1
        while True:
            rows = self._connection.execute(self._query, [self._state, last, READ_AT_ONCE]).fetchall()
            if not rows:
                return
            last = rows[-1][0]
            yield [(number, self._make(*fields)) for number, *fields in rows]


@dataclass
class Plan:
    """What one sync of a published run would do. queried = changes + held + unchanged.

    Queried are all published accounts, and the records of accounts that are gone whose fields are to be cleared.
    The rows are those of a table of the connection it was made on, which holds one plan.
    """

    connection: psycopg.Connection
    run_id: str
    as_of: date
    kinds: dict[str, str]
    """CRM field → string, number, date, moment or bool, by the type of its column."""
    published: int
    """Accounts that are published."""
    queried: int
    unresolved: int
    """Records with an attempt that has no answer yet: a sync reads them back before it plans."""

    @property
    def changes(self) -> Rows[Change]:
        """The rows to send."""
        columns = "account_id, record_id, changes, confirmed, fingerprint, is_removal, by_key"
        return Rows(self.connection, "change", columns, _change)

    @property
    def held(self) -> Rows[Held]:
        """The rows that are not sent."""
        return Rows(self.connection, "held", "account_id, record_id, reason, detail", Held)

    @property
    def unchanged(self) -> int:
        """Rows that need nothing."""
        return self.queried - len(self.changes) - len(self.held)

    @property
    def removals(self) -> int:
        """Of the changes, those that clear what was written of an account that is gone or withdrew its consent."""
        row = self.connection.execute(
            "select count(*) from pg_temp.planned where state = 'change' and is_removal"
        ).fetchone()
        return row[0] if row else 0

    @property
    def creations(self) -> int:
        """Of the changes, those that make a record."""
        row = self.connection.execute(
            "select count(*) from pg_temp.planned where state = 'change' and by_key"
        ).fetchone()
        return row[0] if row else 0

    @property
    def held_reasons(self) -> Counter[str]:
        """Held rows by reason."""
        return Counter(
            dict(
                self.connection.execute(
                    "select reason, count(*) from pg_temp.planned where state = 'held' group by 1 order by 1"
                ).fetchall()
            )
        )

    def adopt(self, found: dict[str, str], fields: list[str]) -> None:
        """Let the records found by key (account → record id) be told, of `fields` alone, instead of made."""
        self.connection.execute(
            "update pg_temp.planned set by_key = false, record_id = found.record_id, changes = ("
            "select coalesce(jsonb_object_agg(key, value), '{}') from jsonb_each(changes) where key = any(%s)) "
            "from unnest(%s::text[], %s::text[]) as found (account_id, record_id) "
            "where state = 'change' and by_key and planned.account_id = found.account_id",
            [fields, list(found), list(found.values())],
        )
        # Nothing but the key, or what only a new record is told.
        self.connection.execute(
            "update pg_temp.planned set state = 'same' where state = 'change' and not by_key and changes = '{}'"
        )

    def hold_creation(self, account_id: str, reason: str, detail: str) -> None:
        """Hold the change that would make the record of an account."""
        self.connection.execute(
            "update pg_temp.planned set state = 'held', reason = %s, detail = %s "
            "where state = 'change' and by_key and account_id = %s",
            [reason, detail, account_id],
        )

    def leave_out(self, number: int, change: Change, fields: list[str], reason: str) -> None:
        """Take fields out of the change of that number; with none left it is held for the reason, which names them."""
        left = {name: value for name, value in change.values.items() if name not in fields}
        if left:
            # Not all that is wanted is sent, so its fingerprint must not be kept.
            self.connection.execute(
                "update pg_temp.planned set changes = %s, fingerprint = null where state = 'change' and number = %s",
                [Jsonb(left), number],
            )
        else:
            self.connection.execute(
                "update pg_temp.planned set state = 'held', reason = %s, detail = %s "
                "where state = 'change' and number = %s",
                [reason, ", ".join(sorted(fields)), number],
            )


def make_plan(connection: psycopg.Connection, mapping: SyncMapping, run_id: str, as_of: date) -> Plan:
    """Compare published.customer_360 with the ledger of the mapping's target, by its rules.

    An account whose CRM record is of another system is not in this one; to a webhook an account's record is itself.
    Rules that depend on what the CRM holds are not yet applied: see include/sync/overwrite.py.

    Raises StratumError where a column is not there or of a type that cannot be told, or where another run was
    published meanwhile. Rows come in the order of account_id.
    """
    with connection.transaction():
        # One snapshot: pointer, values and ledger belong together.
        connection.execute("set transaction isolation level repeatable read")
        _check_pointer(connection, run_id)
        types = _types_of(connection, mapping)
        seed = _seed(mapping, types)
        connection.execute("drop table if exists pg_temp.suspects, pg_temp.planned")
        published, has_doubled = _count_accounts(connection)
        has_made = _has_made(connection, mapping)
        # The statistics may know of no record that awaits a pull, right after thousands were made.
        connection.execute("set local enable_nestloop = off")
        # That few rows are left cannot be estimated: all of them would seem to pass from the workers to this process.
        connection.execute("set local parallel_tuple_cost = 0")
        connection.execute(suspects(mapping, types, seed, has_doubled, has_made))
        connection.execute("set local enable_nestloop to default")
        connection.execute("set local parallel_tuple_cost to default")
        connection.execute("analyze pg_temp.suspects (account_id, record_id)")
        # Who shares a record with a suspect may be none itself: the ledger knows both.
        if named := connection.execute(PARTNERS, {"target": mapping.target}).fetchall():
            accounts, records = zip(*named, strict=True)
            connection.execute(
                suspects(mapping, types, seed, has_doubled, has_made, partners=True),
                {"accounts": list(accounts), "records": list(records)},
            )
        connection.execute(planned(mapping), {"target": mapping.target, "creates": mapping.create})
        connection.execute("drop table pg_temp.suspects")
        connection.execute("create unique index on pg_temp.planned (state, number)")
        gone = connection.execute("select count(*) from pg_temp.planned where is_gone").fetchone()
        unresolved = connection.execute(
            "select count(distinct record_id) from sync.attempts where target = %s and status = 'open'",
            [mapping.target],
        ).fetchone()
    queried = published + gone[0]  # type: ignore[index]
    return Plan(connection, run_id, as_of, _kinds(mapping, types), published, queried, unresolved[0])  # type: ignore[index]


def _change(
    account_id: str,
    record_id: str,
    values: dict[str, str | None],
    confirmed: dict[str, str | None],
    fingerprint: int | None,
    is_removal: bool,
    by_key: bool,
) -> Change:
    old = {name: confirmed[name] for name in values if name in confirmed}
    return Change(account_id, record_id, values, old, fingerprint, is_removal, by_key)


def _check_pointer(connection: psycopg.Connection, run_id: str) -> None:
    row = connection.execute("select run_id from published.current_run").fetchone()
    if row is None or row[0] != run_id:
        raise StratumError(f"Another run than {run_id} was published while its sync began: sync again.")


def _count_accounts(connection: psycopg.Connection) -> tuple[int, bool]:
    """Return how many accounts are published, and whether an id is there twice; both from the table's key alone."""
    doubled = "false" if _has_key(connection) else "count(account_id) > count(distinct account_id)"
    row = connection.execute(
        f"select count(*), {doubled} from published.customer_360"  # noqa: S608 - one of the two above
    ).fetchone()
    return row  # type: ignore[return-value]


def _has_key(connection: psycopg.Connection) -> bool:
    """Return whether the table behind published.customer_360 itself keeps an account of a run from being there twice.

    It does where a publish made it. To ask for the key is free; to look for doubles took a twentieth of the plan's time.
    """
    row = connection.execute(
        "select coalesce(array_agg(attname::text) <@ array['run_id', 'account_id'], false) "
        "from pg_index cross join unnest(indkey) as place "
        "join pg_attribute on attrelid = indrelid and attnum = place "
        "where indrelid = to_regclass('published.customer_360_by_run') and indisprimary"
    ).fetchone()
    return row[0]  # type: ignore[index]


def _has_made(connection: psycopg.Connection, mapping: SyncMapping) -> bool:
    """Return whether the ledger has a record that we made by key and no pull has shown yet."""
    query = sql.SQL("select exists (" + MADE + ")").format(target=sql.Literal(mapping.target))
    row = connection.execute(query).fetchone()
    return row[0]  # type: ignore[index]


def _seed(mapping: SyncMapping, types: dict[str, int]) -> int:
    """Return what tells fingerprints of one mapping from another's: where a rule changes, all rows are compared anew."""
    rules = [(name, types[rule.column], rule.model_dump()) for name, rule in mapping.fields.items()]
    digest = hashlib.sha256(json.dumps(rules).encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def kinds_of(connection: psycopg.Connection, mapping: SyncMapping) -> dict[str, str]:
    """Return CRM field → string, number, date, moment or bool, by its column of published.customer_360.

    Raises StratumError where a column is not there or of a type that cannot be told.
    """
    return _kinds(mapping, _types_of(connection, mapping))


def _kinds(mapping: SyncMapping, types: dict[str, int]) -> dict[str, str]:
    columns = mapping.columns | mapping.columns_at_creation
    return {name: KINDS[types[column]][0] for name, column in columns.items()}


def _types_of(connection: psycopg.Connection, mapping: SyncMapping) -> dict[str, int]:
    """Return the type id of each column the mapping names. Raises StratumError as `kinds_of` does."""
    described = connection.execute("select * from published.customer_360 limit 0").description or []
    types = {column.name: column.type_code for column in described}
    wanted = {*mapping.columns.values(), *mapping.columns_at_creation.values()}
    if missing := sorted({*wanted, *([mapping.consent] if mapping.consent else [])} - types.keys()):
        near = [*dict.fromkeys(name for column in missing for name in get_close_matches(column, types, 2))]
        raise StratumError(
            f"sync.yml names {', '.join(missing)}, which published.customer_360 does not have"
            + (f". Is {' or '.join(near)} meant?" if near else ".")
            + " Its columns: stratum psql -c '\\d customer_360'"
        )
    if odd := sorted(column for column in wanted if types[column] not in KINDS):
        raise StratumError(
            f"The fields in sync.yml name {', '.join(odd)}, whose type cannot be told to a CRM: "
            "map text, numbers, dates, timestamps with a time zone and booleans."
        )
    if mapping.consent and KINDS.get(types[mapping.consent], ("",))[0] != "bool":
        raise StratumError(f"consent in sync.yml names {mapping.consent}, which is not a boolean column.")
    return types
