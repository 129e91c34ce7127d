"""The ledger as a file, back from a file, and anew from what the CRM holds where there is no file."""

import gzip
import hashlib
import json
import os
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from include.errors import StratumError
from include.sources.config import Sources
from include.sync.creation import can_find, found_by_key, with_records
from include.sync.ledger import Ledger
from include.sync.mapping import FieldRule, SyncMapping
from include.sync.plan import Change, make_plan
from include.sync.reconcile import assert_not_all_gone, read_back
from include.sync.run import mapping_of
from include.sync.target import Target
from include.sync.targets import open_target
from include.warehouse.connect import connect

FORMAT = "stratum sync books"
VERSION = 1
READ_AT_ONCE = 5_000
SINCE_LATER = {"awaits_pull": False}
"""What a backup of an earlier Stratum does not have."""
DAMAGES = (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError)
"""What reading a file raises that is not a whole backup."""
# Table → the columns a backup keeps; docs/contracts/sync.md has the format.
TABLES = {
    "ledger": ("record_id", "account_id", "confirmed", "confirmed_at", "proof", "gone_at", "awaits_pull"),
    "failures": (
        "record_id",
        "account_id",
        "tries",
        "reason",
        "payload",
        "first_failed_at",
        "last_failed_at",
        "dead_at",
    ),
    "switches": ("switched_by", "reason", "switched_at"),
}
# What an attempt without an answer may have changed is not known, so a backup does not have it: it is told anew.
OF_THE_LEDGER = """
    select record_id, account_id, confirmed - array(
        select jsonb_object_keys(payload) from sync.attempts
        where attempts.target = ledger.target and attempts.record_id = ledger.record_id and status = 'open'
    ) as confirmed, confirmed_at, proof, gone_at, awaits_pull
    from sync.ledger where target = %s order by record_id
"""
NEWEST = """
    select greatest(
        (select max(confirmed_at) from sync.ledger where target = %(target)s),
        (select max(last_failed_at) from sync.failures where target = %(target)s),
        (select max(reconciled_at) from sync.reconciliations where target = %(target)s)
    )
"""


@dataclass(frozen=True)
class Saved:
    """What a backup holds, or a restore took from it: records of the ledger, failures (dead letters among them)."""

    target: str
    ledger: int
    failures: int
    dead_letters: int
    is_off: bool
    """Whether the target was switched off."""
    newest: datetime | None
    """When the ledger was changed last; None where it was empty."""


@dataclass(frozen=True)
class Rebuilt:
    """What a rebuild found. known = equal + differing + gone."""

    target: str
    known: int
    """Records that a first sync would tell, were there consent to all."""
    equal: int
    """Records that hold all of it already: the next sync does not tell them."""
    differing: int
    gone: int
    """Records the CRM does not have."""
    not_read: dict[str, int]
    """Reason → accounts that are held for it: what their records were told stays unknown."""
    calls: int


def backup(sources: Sources, name: str, path: Path) -> Saved:
    """Write the books of the target `name` into one file, which is there whole or not at all.

    It holds no secret. Raises StratumError where the file cannot be written.
    """
    target = mapping_of(sources, name).target
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with connect("syncer") as books:
        books.execute("set transaction isolation level repeatable read")
        newest = _newest(books, target)
        try:
            with beside.open("wb") as file:
                # Without a name and a time in it, equal books make equal files.
                with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as lines:
                    saved = _write_lines(books, target, newest, lines)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        except OSError as error:
            raise StratumError(f"{path} cannot be written: {error.strerror}. Choose another file.") from error
        finally:
            beside.unlink(missing_ok=True)
    return saved


def _write_lines(
    books: psycopg.Connection, target: str, newest: datetime | None, out: gzip.GzipFile
) -> Saved:
    digest, counts, dead = hashlib.sha256(), dict.fromkeys(TABLES, 0), 0

    def write(line: dict[str, Any]) -> None:
        text = json.dumps(line, default=_iso, ensure_ascii=False).encode() + b"\n"
        digest.update(text)
        out.write(text)

    write({"format": FORMAT, "version": VERSION, "target": target, "newest": newest})
    for table, columns in TABLES.items():
        for row in _rows_of(books, target, table):
            counts[table] += 1
            dead += table == "failures" and row["dead_at"] is not None
            write({"table": table} | {name: row[name] for name in columns})
    end = {"end": counts, "sha256": digest.hexdigest()}
    out.write(json.dumps(end).encode() + b"\n")
    return Saved(target, counts["ledger"], counts["failures"], dead, counts["switches"] > 0, newest)


def _rows_of(books: psycopg.Connection, target: str, table: str) -> Iterator[dict[str, Any]]:
    query = (
        sql.SQL(OF_THE_LEDGER)
        if table == "ledger"
        else sql.SQL("select * from sync.{} where target = %s").format(sql.Identifier(table))
    )
    with books.cursor(name=f"backup_{table}", row_factory=dict_row) as rows:
        rows.itersize = READ_AT_ONCE
        rows.execute(query, [target])
        yield from rows


def restore(sources: Sources, name: str, path: Path, force: bool = False) -> Saved:
    """Put the books of a backup in the place of those of the target `name`; the same file twice changes nothing more.

    A target that was switched off since stays off. What was told after the backup was made the restored ledger does
    not know: reconcile afterwards. Raises StratumError, and changes nothing, where the file is damaged, of another
    version or of another target, or, without `force`, where the ledger was changed after the backup was made.
    """
    target = mapping_of(sources, name).target
    with connect("syncer") as books:
        Ledger(books, target).lock()
        try:
            with books.transaction(), gzip.open(path, "rb") as lines:
                return _restore(books, target, path, lines, force)
        except FileNotFoundError as error:
            raise StratumError(f"There is no file {path}.") from error
        except (*DAMAGES, psycopg.DataError, psycopg.IntegrityError) as error:
            raise _damaged(path, str(error).splitlines()[0]) from error


def _restore(books: psycopg.Connection, target: str, path: Path, lines: gzip.GzipFile, force: bool) -> Saved:
    first = next(lines, b"")
    header = json.loads(first)
    _check_header(header, path, target)
    made = datetime.fromisoformat(header["newest"]) if header["newest"] else None
    newest = _newest(books, target)
    for table in ("ledger", "failures"):
        books.execute(
            sql.SQL("delete from sync.{} where target = %s").format(sql.Identifier(table)), [target]
        )
    digest, counts, dead = hashlib.sha256(first), dict.fromkeys(TABLES, 0), 0
    line: dict[str, Any] = {}
    while some := list(islice(lines, READ_AT_ONCE)):
        rows: dict[str, list[list[Any]]] = {table: [] for table in TABLES}
        for text in some:
            line = json.loads(text)
            if "end" in line:
                break
            digest.update(text)
            counts[line["table"]] += 1
            dead += line.get("dead_at") is not None
            columns = TABLES[line["table"]]
            rows[line["table"]].append([target, *(_value((SINCE_LATER | line)[name]) for name in columns)])
        _insert(books, rows)
        if "end" in line:
            break
    if "end" not in line:
        raise _damaged(path, "its last line is missing")
    if line["end"] != counts or line["sha256"] != digest.hexdigest():
        raise _damaged(path, "its checksum is another one")
    # Last, so that nobody is told to force a file that is damaged.
    if not force and newest is not None and (made is None or newest > made):
        raise StratumError(
            f"The ledger of {target} was changed at {newest:%Y-%m-%d %H:%M:%S %Z}, after what is in {path}. "
            "Restore it all the same with --force."
        )
    return Saved(target, counts["ledger"], counts["failures"], dead, counts["switches"] > 0, made)


def _check_header(header: dict[str, Any], path: Path, target: str) -> None:
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise _damaged(path, "its first line is not that of a backup")
    if header["version"] != VERSION:
        raise StratumError(
            f"{path} is of version {header['version']} of the format, and this Stratum reads {VERSION}: restore it with "
            "the Stratum that wrote it, or rebuild the ledger from the CRM: stratum sync rebuild."
        )
    if header["target"] != target:
        raise StratumError(f"{path} is a backup of {header['target']}, not of {target}.")


def _insert(books: psycopg.Connection, rows: dict[str, list[list[Any]]]) -> None:
    with books.cursor() as cursor:
        for table, some in rows.items():
            columns = TABLES[table]
            cursor.executemany(
                sql.SQL("insert into sync.{} (target, {}) values (%s, {}) {}").format(
                    sql.Identifier(table),
                    sql.SQL(", ").join(map(sql.Identifier, columns)),
                    sql.SQL(", ").join([sql.Placeholder()] * len(columns)),
                    sql.SQL("on conflict (target) do nothing" if table == "switches" else ""),
                ),
                some,
            )


def _value(given: Any) -> Any:
    return Jsonb(given) if isinstance(given, dict) else given


def _damaged(path: Path, why: str) -> StratumError:
    return StratumError(f"{path} is not a whole backup of a sync ({why}). Nothing was restored.")


def _newest(books: psycopg.Connection, target: str) -> datetime | None:
    """Return when ledger or failures were changed last; None where there is nothing."""
    row = books.execute(NEWEST, {"target": target}).fetchone()
    return row[0] if row else None


def _iso(value: Any) -> str:
    return value.isoformat()


def rebuild(
    sources: Sources,
    name: str,
    *,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> Rebuilt:
    """Write the lost ledger of the target `name` from what the target holds of the accounts a sync would tell.

    Accounts that withdrew their consent are read too: what they hold of what is published was told before, and a sync
    clears it. What was told of accounts that are no longer published cannot be known.

    Nothing is sent, and the next sync sends what truly differs. Raises StratumError where nothing is published, there
    is a ledger, or the target cannot be read or has none of the records; TransientError where it does not answer. Then
    nothing is written.
    """
    mapping = mapping_of(sources, name)
    with connect("syncer") as books, open_target(mapping, "syncer", clock, sleep) as target:
        books.autocommit = True
        if not target.can_read:
            raise StratumError(
                f"{target.name} cannot be asked what it holds: restore a backup (stratum sync restore)."
            )
        Ledger(books, mapping.target).lock()
        return _rebuild(books, mapping, target)


def _rebuild(books: psycopg.Connection, mapping: SyncMapping, target: Target) -> Rebuilt:
    held = books.execute("select count(*) from sync.ledger where target = %s", [mapping.target]).fetchone()
    if held and held[0]:
        raise StratumError(
            f"{mapping.target} has a ledger of {held[0]:,} records, so there is nothing to rebuild. To compare it with "
            f"what the CRM holds, and mend it: stratum sync reconcile --all --heal"
        )
    published = books.execute("select run_id, as_of_date from published.current_run").fetchone()
    if published is None:
        raise StratumError("Nothing is published yet, so it is not known which records to read.")
    # Without a ledger the plan is all there is to tell, in the very words a sync would use.
    plan = make_plan(books, mapping.model_copy(update={"consent": None}), *published)
    calls, known, equal, gone = target.calls, 0, 0, 0
    finds = plan.creations > 0 and can_find(target, mapping)
    changes = (change for change in plan.changes if finds or not change.by_key)
    with books.transaction():  # whole, or not there
        while asked := list(islice(changes, READ_AT_ONCE)):
            found = found_by_key(target, asked)
            page = [each for each in asked if not each.by_key or each.account_id in found]
            page = with_records(page, found, mapping)
            shown = read_back(target, [change.record_id for change in page], list(mapping.fields))
            there = [(change, shown[change.record_id]) for change in page if change.record_id in shown]
            withdrawn = _withdrawn(books, mapping, page)
            rows = [
                (
                    change,
                    _known(mapping.fields, change.values, now, target, change.account_id in withdrawn),
                )
                for change, now in there
            ]
            known += len(page)
            gone += len(page) - len(there)
            equal += sum(confirmed == change.values for change, confirmed in rows)
            _remember(books, mapping.target, rows, found)
        assert_not_all_gone(target, known, gone)
    differing = known - equal - gone
    return Rebuilt(
        mapping.target, known, equal, differing, gone, dict(plan.held_reasons), target.calls - calls
    )


def _withdrawn(books: psycopg.Connection, mapping: SyncMapping, page: list[Change]) -> set[str]:
    """Return which of the accounts withdrew their consent, or never gave it."""
    if mapping.consent is None:
        return set()
    query = sql.SQL(
        "select account_id from published.customer_360 where account_id = any(%s) and {} is not true"
    ).format(sql.Identifier(mapping.consent))
    return {account for (account,) in books.execute(query, [[change.account_id for change in page]])}


def _remember(
    books: psycopg.Connection,
    target: str,
    rows: list[tuple[Change, dict[str, str | None]]],
    by_key: dict[str, str],
) -> None:
    """Write rows; `by_key` are the accounts whose record is known by their key alone.

    A record that bears one account's key and is published as another's is the latter's, which comes first.
    """
    with books.cursor() as cursor:
        cursor.executemany(
            "insert into sync.ledger (target, record_id, account_id, confirmed, sync_id, proof, awaits_pull) "
            "values (%s, %s, %s, %s, null, 'read_back', %s) on conflict (target, record_id) do nothing",
            [
                (target, change.record_id, change.account_id, Jsonb(confirmed), change.account_id in by_key)
                for change, confirmed in rows
            ],
        )


def _known(
    fields: dict[str, FieldRule],
    told: dict[str, str | None],
    held: dict[str, str | None],
    target: Target,
    is_to_clear: bool,
) -> dict[str, str | None]:
    """Return what the ledger may say of a record: field → value.

    Who wrote a value that is not the published one is not known. It counts as ours where the rule lets anybody's be
    overwritten, and nothing is to be cleared; else it is left out, so that it is not taken for ours.
    """
    known: dict[str, str | None] = {}
    for name, text in told.items():
        now = held.get(name) or None
        if target.is_same(text, now):
            known[name] = text  # in our own writing: the plan compares texts
        elif now is not None and fields[name].overwrite == "always" and not is_to_clear:
            known[name] = now
    return known
