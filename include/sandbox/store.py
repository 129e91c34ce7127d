"""The sandbox's CRM records and property definitions, in one sqlite file that outlives the server."""

import json
import sqlite3
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FIRST_RECORD_ID = 18_000_000_037
RECORD_ID_STEP = 37
COMPANIES = "companies"
FIRST_IDS = {
    COMPANIES: FIRST_RECORD_ID,
    "contacts": 28_000_000_011,
    "deals": 38_000_000_023,
    "tickets": 48_000_000_019,
    "feedback_submissions": 58_000_000_029,
}
"""Where the record ids of each object type begin. HubSpot's may be equal across types; here they never are."""
MERGED = "hs_merged_object_ids"
READ_ONLY = ("createdate", "hs_lastmodifieddate", "hs_object_id", MERGED)
BUILT_IN = {
    "name": "string",
    "industry": "string",
    "country": "string",
    "domain": "string",
    "account_number": "string",
    "createdate": "datetime",
    "hs_lastmodifieddate": "datetime",
    "hs_object_id": "number",
}
SCHEMA = """
create table if not exists records (
    id integer primary key,
    created_at text not null,
    updated_at text not null,
    archived_at text,
    properties text not null,
    kind text not null default 'companies',
    company_id integer
);
create index if not exists records_of on records (kind, id);
create index if not exists records_modified on records (kind, updated_at, id);
create table if not exists merges (id integer primary key, kind text not null, into_id integer not null);
create table if not exists history (
    seq integer primary key autoincrement,
    record_id integer not null,
    property text not null,
    value text not null,
    changed_at text not null
);
create index if not exists history_of on history (record_id, property, seq);
create table if not exists property_groups (name text primary key, label text not null);
create table if not exists properties (name text primary key, definition text not null);
create table if not exists writes (
    seq integer primary key autoincrement,
    at text not null,
    record_id text not null,
    trace text,
    written text not null
);
create index if not exists writes_of on writes (record_id, seq);
"""
# A state file that an older version made knows companies alone.
FROM_COMPANIES_ALONE = """
alter table companies rename to records;
alter table records add column kind text not null default 'companies';
alter table records add column company_id integer;
"""


@dataclass(frozen=True)
class Account:
    """One company to seed the sandbox with; a null property is left unset."""

    account_number: str | None
    name: str | None
    industry: str | None
    country: str | None
    created_at: datetime
    domain: str | None = None


@dataclass(frozen=True)
class Record:
    """One record to seed the sandbox with: its object type, its account's number (None: of no company), its values.

    `values` are (property, set at, value) of every value it ever had, oldest first. `company_id` is the record id of
    its company, where no number names it.
    """

    kind: str
    account: str | None
    created_at: datetime
    values: tuple[tuple[str, datetime, str], ...]
    archived_at: datetime | None = None
    company_id: int | None = None


def stamp(moment: datetime) -> str:
    """Return an instant as HubSpot writes it: UTC with milliseconds and a Z."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def record_id_of(place: int) -> int:
    """Return the record id of the company at a place of the list the sandbox is seeded with, from 0."""
    return FIRST_RECORD_ID + place * RECORD_ID_STEP


class Store:
    """Records with the history of their properties; property definitions and groups of companies.

    Every write is one sqlite transaction: a killed server has either done a batch or not.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.db = sqlite3.connect(path, check_same_thread=False)
        self.db.row_factory = sqlite3.Row
        self.db.execute("pragma journal_mode = wal")
        if self.db.execute("select 1 from sqlite_master where name = 'companies'").fetchone():
            self.db.executescript(f"begin; {FROM_COMPANIES_ALONE} commit;")
        self.db.executescript(SCHEMA)
        self._written: dict[int, float] = {}

    def close(self) -> None:
        """Close the file."""
        self.db.close()

    def is_empty(self) -> bool:
        """Tell whether the sandbox was never seeded."""
        return self.db.execute("select 1 from property_groups").fetchone() is None

    def seed(self, accounts: Iterable[Account]) -> None:
        """Fill an empty store: built-in properties and one company per account, in the order given."""
        with self.db:
            self._add_group("companyinformation", "Company information")
            for name, kind in BUILT_IN.items():
                self._add_property(
                    {
                        "name": name,
                        "label": name,
                        "type": kind,
                        "fieldType": "text",
                        "groupName": "companyinformation",
                        "hubspotDefined": name != "account_number",
                        "modificationMetadata": {
                            "archivable": False,
                            "readOnlyDefinition": True,
                            "readOnlyValue": name in READ_ONLY,
                        },
                    }
                )
            for index, account in enumerate(accounts):
                self._add_company(str(record_id_of(index)), account)

    def missing_kinds(self) -> set[str]:
        """Return the object types the store has no record of."""
        rows = self.db.execute("select distinct kind from records").fetchall()
        return set(FIRST_IDS) - {row["kind"] for row in rows}

    def seed_records(self, records: Iterable[Record]) -> None:
        """Add records of object types the store has none of, linked to companies by account number.

        Their order gives the record ids; a record of an account that no company stands for is linked to none.
        """
        with self.db:
            companies = {
                number: row["id"]
                for row in self.db.execute("select id, properties from records where kind = ?", [COMPANIES])
                if (number := json.loads(row["properties"]).get("account_number"))
            }
            next_ids = dict(FIRST_IDS)
            rows: list[list[Any]] = []
            past: list[tuple[int, str, str, str]] = []
            for record in records:
                record_id = next_ids[record.kind]
                next_ids[record.kind] += RECORD_ID_STEP
                history = [
                    (record_id, name, value, stamp(changed_at)) for name, changed_at, value in record.values
                ]
                company_id = record.company_id or companies.get(record.account or "")
                rows.append(_row(record, record_id, company_id, history))
                past += history
            self.db.executemany(
                "insert into records (id, kind, company_id, created_at, updated_at, archived_at, properties) "
                "values (?, ?, ?, ?, ?, ?, ?)",
                rows,
            )
            self.db.executemany(
                "insert into history (record_id, property, value, changed_at) values (?, ?, ?, ?)", past
            )

    def _add_company(self, record_id: str, account: Account) -> None:
        created = stamp(account.created_at)
        given = {
            "name": account.name,
            "industry": account.industry,
            "country": account.country,
            "account_number": account.account_number,
            "domain": account.domain,
        }
        values = {name: str(value) for name, value in given.items() if value is not None}
        fixed = {"createdate": created, "hs_lastmodifieddate": created, "hs_object_id": record_id}
        self.db.execute(
            "insert into records (id, created_at, updated_at, properties) values (?, ?, ?, ?)",
            [record_id, created, created, json.dumps(values | fixed)],
        )
        self._remember(record_id, values, created)

    def _remember(self, record_id: str, values: dict[str, str], changed_at: str) -> None:
        self.db.executemany(
            "insert into history (record_id, property, value, changed_at) values (?, ?, ?, ?)",
            [(record_id, name, value, changed_at) for name, value in values.items()],
        )

    def page(self, kind: str, after: str | None, limit: int, archived: bool) -> list[sqlite3.Row]:
        """Return up to `limit` records of an object type with an id above `after`, in order of id."""
        return self.db.execute(
            "select * from records where kind = ? and id > ? and (archived_at is not null) = ? order by id limit ?",
            [kind, int(after or 0), archived, limit],
        ).fetchall()

    def find(self, record_id: str, kind: str = COMPANIES, archived: bool = False) -> sqlite3.Row | None:
        """Return a record, which is or is not archived, or None; of one that was merged what it was merged into."""
        if not record_id.isdecimal() or len(record_id) > 18:  # what sqlite's integers hold
            return None
        number = int(record_id)
        while into := self.db.execute(
            "select into_id from merges where id = ? and kind = ?", [number, kind]
        ).fetchone():
            (number,) = into
        return self.db.execute(
            "select * from records where id = ? and kind = ? and (archived_at is not null) = ?",
            [number, kind, archived],
        ).fetchone()

    def linked(self, kind: str) -> list[sqlite3.Row]:
        """Return id and company of the records of an object type that have a company and are not archived."""
        return self.db.execute(
            "select id, company_id from records where kind = ? and archived_at is null and company_id is not null",
            [kind],
        ).fetchall()

    def written_within(self, seconds: float) -> list[int]:
        """Return the ids of the records that were written in the last so many seconds, by this process."""
        since = time.monotonic() - seconds
        return [record_id for record_id, at in self._written.items() if at > since]

    def histories(
        self, record_ids: Sequence[int], names: Sequence[str]
    ) -> dict[int, dict[str, list[sqlite3.Row]]]:
        """Return record → property → every value it ever had, newest first; all `names`, also those never set."""
        found: dict[int, dict[str, list[sqlite3.Row]]] = {
            each: {name: [] for name in names} for each in record_ids
        }
        for row in self.db.execute(
            "select record_id, property, value, changed_at from history "
            "where record_id in (select value from json_each(?)) "
            "and property in (select value from json_each(?)) order by seq desc",
            [json.dumps(list(record_ids)), json.dumps(list(names))],
        ):
            found[row["record_id"]][row["property"]].append(row)
        return found

    def update(self, changes: list[tuple[str, dict[str, str]]], now: datetime, kind: str = COMPANIES) -> None:
        """Set properties of records of one object type, all or none; a value that changes adds to its history."""
        with self.db:
            for record_id, values in changes:
                row = self.find(record_id, kind)
                if row is None:
                    raise KeyError(record_id)
                held = json.loads(row["properties"])
                self._remember(
                    str(row["id"]), {n: v for n, v in values.items() if held.get(n) != v}, stamp(now)
                )
                held |= values | {"hs_lastmodifieddate": stamp(now)}
                self.db.execute(
                    "update records set properties = ?, updated_at = ? where id = ?",
                    [json.dumps(held), stamp(now), row["id"]],
                )
                self._written[row["id"]] = time.monotonic()

    def holders(self, name: str, value: str, kind: str = COMPANIES) -> list[str]:
        """Return the ids of the records, archived ones aside, whose property has a value, whatever its case."""
        rows = self.db.execute(
            "select id from records where kind = ? and archived_at is null "
            "and lower(json_extract(properties, ?)) = ? order by id",
            [kind, f'$."{name}"', value.lower()],
        )
        return [str(row["id"]) for row in rows]

    def create(self, values: dict[str, str], now: datetime, kind: str = COMPANIES) -> str:
        """Make a record and return its id."""
        with self.db:
            record_id = str(self._next_id(kind))
            fixed = {"createdate": stamp(now), "hs_lastmodifieddate": stamp(now), "hs_object_id": record_id}
            self.db.execute(
                "insert into records (id, kind, created_at, updated_at, properties) values (?, ?, ?, ?, ?)",
                [record_id, kind, stamp(now), stamp(now), json.dumps(values | fixed)],
            )
            self._remember(record_id, values, stamp(now))
            self._written[int(record_id)] = time.monotonic()
            return record_id

    def log_writes(self, rows: list[tuple[str, str | None, dict[str, str]]], now: datetime) -> None:
        """Write down rows that a batch applied: record id as it was sent or made, objectWriteTraceId, values."""
        with self.db:
            self.db.executemany(
                "insert into writes (at, record_id, trace, written) values (?, ?, ?, ?)",
                [(stamp(now), each, trace, json.dumps(values)) for each, trace, values in rows],
            )

    def written(self, record_id: str | None = None) -> list[dict[str, Any]]:
        """Return the rows batch updates applied, oldest first: at, record_id, trace, values; of one record, or all."""
        rows = self.db.execute(
            "select * from writes where ? is null or record_id = ? order by seq", [record_id, record_id]
        )
        return [
            {name: row[name] for name in ("at", "record_id", "trace")}
            | {"values": json.loads(row["written"])}
            for row in rows
        ]

    def archive(self, record_id: str, now: datetime, kind: str = COMPANIES) -> None:
        """Move a record to the recycling bin; nothing happens where it is there or unknown."""
        with self.db:
            self.db.execute(
                "update records set archived_at = ?, updated_at = ? "
                "where id = ? and kind = ? and archived_at is null",
                [stamp(now), stamp(now), int(record_id), kind],
            )
            self._written[int(record_id)] = time.monotonic()

    def restore(self, record_id: str) -> None:
        """Take a record out of the recycling bin, as the app does; its stamp of modification stays."""
        with self.db:
            self.db.execute("update records set archived_at = null where id = ?", [int(record_id)])

    def purge(self, record_id: str) -> None:
        """Delete a record for good, as the app does on a request for privacy."""
        with self.db:
            self.db.execute("delete from records where id = ?", [int(record_id)])

    def associate(self, record_id: str, company_id: str | None, now: datetime | None = None) -> None:
        """Give a record another primary company; its stamp of modification moves only where `now` is given."""
        with self.db:
            self.db.execute(
                "update records set company_id = ?, updated_at = coalesce(?, updated_at) where id = ?",
                [company_id and int(company_id), now and stamp(now), int(record_id)],
            )

    def merge(
        self, primary_id: str, other_id: str, now: datetime, kind: str = COMPANIES, anew: bool = False
    ) -> str:
        """Merge a record into another one, or both into one of a new id; return the id that remains.

        The primary one's values and past hold; the other's values fill what it lacks, as of the merge. Records of the
        companies that left belong to the one that remains. Raises KeyError for an id that is not there.
        """
        with self.db:
            primary, other = self.find(primary_id, kind), self.find(other_id, kind)
            if primary is None or other is None or primary["id"] == other["id"]:
                raise KeyError(other_id if primary else primary_id)
            left = [other["id"], primary["id"]] if anew else [other["id"]]
            remains = self._next_id(kind) if anew else primary["id"]
            held, lost = json.loads(primary["properties"]), json.loads(other["properties"])
            gained = {name: value for name, value in lost.items() if not held.get(name) and name != MERGED}
            merged = [each for each in (held.get(MERGED), lost.get(MERGED), *left) if each]
            changed = gained | {MERGED: ";".join(str(each) for each in merged)}
            fixed = {"hs_lastmodifieddate": stamp(now), "hs_object_id": str(remains)}
            row = [
                remains,
                kind,
                primary["company_id"] or other["company_id"],
                primary["created_at"],
                stamp(now),
            ]
            self.db.execute("update history set record_id = ? where record_id = ?", [remains, primary["id"]])
            self._remember(str(remains), changed, stamp(now))
            self.db.executemany("delete from records where id = ?", [[each] for each in {*left, remains}])
            self.db.execute(
                "insert into records (id, kind, company_id, created_at, updated_at, properties) values (?, ?, ?, ?, ?, ?)",
                [*row, json.dumps(held | changed | fixed)],
            )
            self.db.executemany(
                "insert into merges values (?, ?, ?)", [[each, kind, remains] for each in left]
            )
            if kind == COMPANIES:
                self.db.executemany(
                    "update records set company_id = ? where company_id = ?",
                    [[remains, each] for each in left],
                )
            self._written[remains] = time.monotonic()
            return str(remains)

    def _next_id(self, kind: str) -> int:
        (last,) = self.db.execute(
            "select max(id) from (select id from records where kind = ? union all select id from merges where kind = ?)",
            [kind, kind],
        ).fetchone()
        return int(last) + RECORD_ID_STEP

    def groups(self) -> list[sqlite3.Row]:
        """Return the property groups."""
        return self.db.execute("select name, label from property_groups order by rowid").fetchall()

    def properties(self) -> dict[str, dict[str, Any]]:
        """Return the property definitions by name."""
        rows = self.db.execute("select name, definition from properties order by rowid").fetchall()
        return {row["name"]: json.loads(row["definition"]) for row in rows}

    def used_properties(self, kind: str) -> list[str]:
        """Return the names of the properties that any record of an object type has a past of."""
        rows = self.db.execute(
            "select distinct property from history inner join records on id = record_id where kind = ? order by 1",
            [kind],
        ).fetchall()
        return [row["property"] for row in rows]

    def add_group(self, name: str, label: str) -> None:
        """Add a property group. Raises sqlite3.IntegrityError where it exists."""
        with self.db:
            self._add_group(name, label)

    def add_property(self, definition: dict[str, Any]) -> None:
        """Add a property definition. Raises sqlite3.IntegrityError where it exists."""
        with self.db:
            self._add_property(definition)

    def _add_group(self, name: str, label: str) -> None:
        self.db.execute("insert into property_groups (name, label) values (?, ?)", [name, label])

    def _add_property(self, definition: dict[str, Any]) -> None:
        self.db.execute(
            "insert into properties (name, definition) values (?, ?)",
            [definition["name"], json.dumps(definition)],
        )


def _row(
    record: Record, record_id: int, company_id: int | None, history: list[tuple[int, str, str, str]]
) -> list[Any]:
    """Return the columns of a seeded record: its newest values, and when it was last modified."""
    created = stamp(record.created_at)
    archived = stamp(record.archived_at) if record.archived_at else None
    updated = max([created, *(each[3] for each in history), *([archived] if archived else [])])
    values = {name: value for _, name, value, _ in history}
    fixed = {"createdate": created, "hs_lastmodifieddate": updated, "hs_object_id": str(record_id)}
    return [record_id, record.kind, company_id, created, updated, archived, json.dumps(values | fixed)]
