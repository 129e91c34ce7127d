"""Land the versions of CRM records, whichever system they come from: what is new, in which order, and whom it touches."""

import hashlib
import json
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any

from psycopg import sql
from psycopg.types.json import Jsonb

from include.dates import zone
from include.sources.crm_versions import Entity, Timeline, Version, instant
from include.sources.loads import Load
from include.sources.row_sources import Company


@dataclass(frozen=True)
class Held:
    """The newest landed version of a record before the end of the day; `owner` as in _Landed.

    `values` are its properties, where they were asked for.
    """

    row_hash: str
    valid_from: datetime
    owner: str | None
    values: dict[str, str | None] | None = None


@dataclass(frozen=True)
class _Landed:
    """A version to append, of which record, and who owns the record.

    `owner` is the record id of its company; of a company, the account number that the version carries. `owner_before`
    is that of the newest version landed before.
    """

    record: Timeline
    version: Version
    owner: str | None
    owner_before: str | None


class Landing:
    """The raw table of one entity of one system, in one load.

    The table is `raw_<system>.<entity>`; `system` is the first part of the keys of accounts without a number, too.
    """

    def __init__(self, load: Load, system: str, entity: Entity, company: Company, end: datetime) -> None:
        self.load = load
        self.system = system
        self.entity = entity
        self.local = zone(company.timezone)
        self.end = end
        self.table = sql.Identifier(f"raw_{system}", entity.name)
        self.owner_column = sql.Identifier("account_number" if entity.is_company else "company_record_id")

    def held(self, record_ids: list[str] | None = None) -> dict[str, Held]:
        """Return the newest version of each record before the end of the day.

        Of the records named, with their properties; of all, without, where none are named.
        """
        which = sql.SQL("") if record_ids is None else sql.SQL("and record_id = any(%(ids)s) ")
        values = sql.SQL("null" if record_ids is None else "properties")
        rows = self.load.connection.execute(
            sql.SQL(
                "select distinct on (record_id) record_id, row_hash, valid_from, {}, {} from {} "
                "where valid_from < %(end)s {}order by record_id, valid_from desc, load_seq desc"
            ).format(self.owner_column, values, self.table, which),
            {"end": self.end, "ids": record_ids},
        ).fetchall()
        return {row[0]: Held(*row[1:]) for row in rows}

    def land(self, timelines: list[Timeline], held: dict[str, Held]) -> None:
        """Append the versions the warehouse lacks, count the records, and queue the accounts they touch.

        rows_in becomes rows_new (record not seen before) + rows_corrected (seen, and changed) + rows_unchanged + what
        is in quarantine; records created after the day are rows_later, those of no company rows_unattributed.
        """
        load, seen = self.load, self._seen()
        landed: list[_Landed] = []
        for known in timelines:
            if not known.versions:
                load.rows_later += 1
                continue
            before = held.get(known.record_id)
            owner = self._owner(known, before)
            load.rows_unattributed += owner is None
            changed = self._changed(known, owner, before)
            if not changed:
                load.rows_unchanged += 1
            elif known.record_id in seen:
                load.rows_corrected += 1
            else:
                load.rows_new += 1
            was = before.owner if before else None
            landed += [_Landed(known, version, self._owner_of(version, owner), was) for version in changed]
        load.rows_in = load.rows_new + load.rows_corrected + load.rows_unchanged + load.rows_quarantined
        self._append(landed)
        self._queue(landed)

    def _seen(self) -> set[str]:
        rows = self.load.connection.execute(
            sql.SQL("select distinct record_id from {}").format(self.table)
        ).fetchall()
        return {row[0] for row in rows}

    def _owner_of(self, version: Version, owner: str | None) -> str | None:
        """Return who owns a version: a company's number is what it was then, a company of others is not dated."""
        return version.values[self.entity.number] if self.entity.number is not None else owner

    def _owner(self, known: Timeline, before: Held | None) -> str | None:
        """Return who owns a record; of an archived one the company it had, where the CRM shows none of those."""
        if self.entity.number is not None:
            return self._owner_of(known.versions[-1], None)
        if known.is_archived_now and known.company_record_id is None and before:
            return before.owner
        return known.company_record_id

    def _changed(self, known: Timeline, owner: str | None, before: Held | None) -> list[Version]:
        """Return the versions of a record that the warehouse lacks.

        Those are all of a record never landed, else those dated after the newest landed one. Of what the CRM does
        not date (another company, a return from the archive) only a day that no later load has covered, and that
        saw the record's last modification, makes a version: else a later change would be seen on an earlier date.
        """
        if before is None:
            return list(known.versions)
        newer = [version for version in known.versions if version.valid_from > before.valid_from]
        if newer:
            is_known = newer[0].row_hash(self.entity, owner) == before.row_hash
            return newer[1:] if is_known else newer
        last = known.versions[-1]
        covered_until = self.load.covered_until
        is_newest_day = covered_until is None or self.load.as_of >= covered_until
        is_same = last.row_hash(self.entity, owner) == before.row_hash
        if is_same or not is_newest_day or known.modified_at >= self.end:
            return []
        moment = max(known.modified_at, last.valid_from)
        if moment <= before.valid_from:
            moment = self.end - timedelta(microseconds=1)
        return [replace(last, valid_from=moment)]

    def _append(self, landed: list[_Landed]) -> None:
        load, number = self.load, self.entity.number
        statement = sql.SQL(
            "copy {} (load_id, load_seq, loaded_at, known_on, valid_from, record_id, {}, is_archived, row_hash, "
            "properties) from stdin"
        ).format(self.table, self.owner_column)
        with load.connection.cursor() as cursor, cursor.copy(statement) as copy:
            for each in landed:
                version = each.version
                copy.write_row(
                    [
                        load.load_id,
                        load.load_seq,
                        load.started_at,
                        self._known_on(version.valid_from.astimezone(self.local).date()),
                        version.valid_from,
                        each.record.record_id,
                        each.owner if number is None else version.values[number],
                        version.is_archived,
                        version.row_hash(self.entity, each.owner),
                        Jsonb(version.values | {"createdate": each.record.created_at.isoformat()}),
                    ]
                )

    def _queue(self, landed: list[_Landed]) -> None:
        """Queue the accounts whose features the versions change, each from the first of the days changed on.

        A company says on every day which account its records belong to: from its first day on, and the account it
        named before too.
        """
        since: dict[str, date] = {}
        for each in landed:
            if self.entity.is_company:
                moment = each.record.created_at
                keys = {self._account_key(each.record.record_id), each.owner_before}
            else:
                moment = each.version.valid_from
                keys = {self._account_key(each.owner), self._account_key(each.owner_before)}
            day = moment.astimezone(self.local).date()
            for key in keys:
                if key is not None:
                    since[key] = min(day, since.get(key, day))
        with (
            self.load.connection.cursor() as cursor,
            cursor.copy(
                "copy intermediate.restatement_queue (load_id, account_key, from_date) from stdin"
            ) as copy,
        ):
            for key, day in sorted(since.items()):
                copy.write_row([self.load.load_id, key, day])

    def _account_key(self, company_record_id: str | None) -> str | None:
        return None if company_record_id is None else f"{self.system}:{company_record_id}"

    def _known_on(self, day: date) -> date:
        covered_until = self.load.covered_until
        return day if covered_until is None or day > covered_until else self.load.as_of


def farewell(entity: Entity, record_id: str, held: Held, moment: datetime) -> Timeline:
    """Return the last version of a record that the CRM no longer has: what it was, archived from the moment on."""
    landed = held.values or {}
    values = {name: landed.get(name) for name in entity.properties}
    last = Version(values, is_archived=True, valid_from=max(moment, held.valid_from))
    return Timeline(record_id, None, True, instant(landed.get("createdate")), moment, (last,))


def quarantine(load: Load, record: dict[str, Any], reason: str) -> None:
    """Put a record that no version can be made of where refused rows are, under its reason."""
    load.reasons[reason] += 1
    original = json.dumps(record, sort_keys=True)
    load.connection.execute(
        "insert into quarantine.rows "
        "(source, entity, row_hash, reason, original, first_load_id, last_load_id) "
        "values (%s, %s, %s, %s, %s, %s, %s) on conflict (source, entity, row_hash) do update set "
        "reason = excluded.reason, last_load_id = excluded.last_load_id, resolved_load_id = null, resolved_at = null",
        [
            load.source,
            load.entity,
            hashlib.sha256(original.encode()).hexdigest(),
            reason,
            Jsonb(record),
            load.load_id,
            load.load_id,
        ],
    )
