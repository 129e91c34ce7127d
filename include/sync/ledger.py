"""The books of a sync: runs, attempts, what the CRM confirmed, what it refused. Each call here is one commit."""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date

import psycopg
from psycopg.types.json import Jsonb

from include.sync.plan import Change, Plan


@dataclass(frozen=True)
class Attempt:
    """A change noted as attempted; its id goes to the CRM with the row."""

    attempt_id: uuid.UUID
    change: Change
    job_id: str | None = None
    """The CRM's own id of the asynchronous write it is part of; None where the write answers at once."""


class Ledger:
    """The books of one target, and of one sync of it once `open_run` was called.

    `connection` is in autocommit mode, so that each method commits what it writes, all of it or nothing.
    """

    def __init__(self, connection: psycopg.Connection, target: str) -> None:
        self.connection = connection
        self.target = target
        self.sync_id = 0
        self.run_id = ""
        self.as_of = date.min

    def lock(self) -> None:
        """Wait until no other sync of this target runs; held until the connection closes."""
        self.connection.execute(
            "select pg_advisory_lock(hashtextextended(%s, 0))", [f"stratum sync {self.target}"]
        )

    def open_run(self, run_id: str, as_of: date) -> None:
        """Begin the books of a sync, and mark those of a crashed one: under the lock, none can be running."""
        self.run_id, self.as_of = run_id, as_of
        with self.connection.transaction():
            self.connection.execute(
                "update sync.runs set status = 'interrupted', finished_at = clock_timestamp() "
                "where target = %s and status = 'running'",
                [self.target],
            )
            row = self.connection.execute(
                "insert into sync.runs (target, as_of_date, run_id, status) values (%s, %s, %s, 'running') "
                "returning sync_id",
                [self.target, as_of, run_id],
            ).fetchone()
        self.sync_id = row[0]  # type: ignore[index]

    def note_plan(self, plan: Plan) -> None:
        """Write the plan's counts and held rows; what is to be sent counts as failed until it is confirmed.

        The plan is in a table of the ledger's own connection. Rows found to be as confirmed are remembered as such, and
        what the CRM no longer holds of an account that is gone is forgotten. A record that we made, and that a pull has
        brought as its account's own since, is one like any other from now on.
        """
        with self.connection.transaction():
            self.connection.execute(
                "update sync.runs set published = %s, queried = %s, unchanged = %s, held = %s, failed = %s "
                "where sync_id = %s",
                [
                    plan.published,
                    plan.queried,
                    plan.unchanged,
                    len(plan.held),
                    len(plan.changes),
                    self.sync_id,
                ],
            )
            self.connection.execute(
                "insert into sync.outcomes (sync_id, account_id, record_id, outcome, reason, detail) "
                "select %s, account_id, record_id, 'held', reason, detail from pg_temp.planned "
                "where state = 'held' order by number",
                [self.sync_id],
            )
            self.connection.execute(
                "update sync.ledger as ledger set seen = row.fingerprint, account_id = row.account_id "
                "from pg_temp.planned as row where row.state = 'same' and row.fingerprint is not null "
                "and ledger.target = %s and ledger.record_id = row.record_id",
                [self.target],
            )
            self.connection.execute(
                "update sync.ledger as ledger set "
                "confirmed = ledger.confirmed - array(select jsonb_object_keys(row.changes)) "
                "from pg_temp.planned as row where row.state = 'held' and row.is_removal "
                "and row.reason in ('not_ours', 'record_is_gone') "
                "and ledger.target = %s and ledger.record_id = row.record_id",
                [self.target],
            )
            self.connection.execute(
                "update sync.ledger set awaits_pull = false from published.customer_360 as account "
                "where target = %s and awaits_pull and account.account_id = ledger.account_id "
                "and account.crm_system = split_part(target, ':', 1) and account.crm_record_id = ledger.record_id",
                [self.target],
            )

    def note_found(self, found: dict[str, str]) -> None:
        """Note the records that bear the key of an account of which the books know none: account → record id."""
        with self.connection.transaction(), self.connection.cursor() as cursor:
            cursor.executemany(
                "insert into sync.ledger (target, record_id, account_id, confirmed, proof, awaits_pull) "
                "values (%s, %s, %s, '{}', 'read_back', true)",
                [(self.target, record, account) for account, record in found.items()],
            )

    def close_run(self, status: str, calls: int, failure: str | None = None) -> None:
        """End the books of the sync."""
        self.connection.execute(
            "update sync.runs set status = %s, calls = %s, failure = %s, finished_at = clock_timestamp() "
            "where sync_id = %s",
            [status, calls, failure, self.sync_id],
        )

    def attempt(self, changes: list[Change]) -> list[Attempt]:
        """Note, before the call, what is about to be sent."""
        attempts = [Attempt(uuid.uuid4(), change) for change in changes]
        self.connection.execute(
            "insert into sync.attempts (attempt_id, sync_id, target, record_id, account_id, payload, by_key) "
            "select attempt_id, %s, %s, record_id, account_id, payload, by_key from jsonb_to_recordset(%s) "
            "as told (attempt_id uuid, record_id text, account_id text, payload jsonb, by_key boolean)",
            [
                self.sync_id,
                self.target,
                Jsonb(
                    [
                        {
                            "attempt_id": str(attempt.attempt_id),
                            "record_id": attempt.change.record_id,
                            "account_id": attempt.change.account_id,
                            "payload": attempt.change.values,
                            "by_key": attempt.change.by_key,
                        }
                        for attempt in attempts
                    ]
                ),
            ],
        )
        return attempts

    def note_job(self, attempts: list[Attempt], job_id: str) -> None:
        """Note the job an asynchronous write was begun as, before any row is handed to it."""
        self.connection.execute(
            "update sync.attempts set job_id = %s where attempt_id = any(%s)",
            [job_id, [attempt.attempt_id for attempt in attempts]],
        )

    def switched_off(self) -> str | None:
        """Return who switched the target off and why; None where it is on."""
        row = self.connection.execute(
            "select format('switched off by %%s: %%s', switched_by, reason) from sync.switches where target = %s",
            [self.target],
        ).fetchone()
        return row[0] if row else None

    def confirm(
        self, attempts: list[Attempt], proof: str, is_own: bool = True, records: dict[str, str] | None = None
    ) -> None:
        """Write what the CRM holds now. `proof` is 'answer' or 'read_back'.

        `is_own` tells attempts of this sync, whose rows become `sent`, from those a crash left behind. `records` names
        the records of those that were told by key: attempt → record id.
        """
        if not attempts:
            return
        with self.connection.transaction(), self.connection.cursor() as cursor:
            cursor.execute(
                "delete from sync.failures where target = %s and record_id = any(%s)",
                [self.target, [attempt.change.record_id for attempt in attempts]],
            )
            attempts = self._name_records(cursor, attempts, records or {})
            self._settle(attempts, "confirmed" if proof == "answer" else "landed", None)
            self._write_ledger(
                cursor, [(each.change, str(each.attempt_id) in (records or {})) for each in attempts], proof
            )
            self._write_deliveries(cursor, attempts, proof)
            if is_own:
                cursor.execute(
                    "update sync.runs set sent = sent + %s, failed = failed - %s where sync_id = %s",
                    [len(attempts), len(attempts), self.sync_id],
                )

    def _name_records(
        self, cursor: psycopg.Cursor, attempts: list[Attempt], records: dict[str, str]
    ) -> list[Attempt]:
        """Give the attempts that were told by key the id of the record they made or found."""
        if not records:
            return attempts
        cursor.execute(
            "update sync.attempts set record_id = made.record_id "
            "from unnest(%s::uuid[], %s::text[]) as made (attempt_id, record_id) "
            "where attempts.attempt_id = made.attempt_id",
            [list(records), list(records.values())],
        )
        return [
            replace(
                each,
                change=replace(
                    each.change, record_id=records.get(str(each.attempt_id), each.change.record_id)
                ),
            )
            for each in attempts
        ]

    def _write_ledger(self, cursor: psycopg.Cursor, changes: list[tuple[Change, bool]], proof: str) -> None:
        """Write changes, each with whether the account's record was learnt by telling it."""
        cursor.execute(
            "insert into sync.ledger as held "
            "(target, record_id, account_id, confirmed, sync_id, seen, proof, awaits_pull) "
            "select %s, record_id, account_id, confirmed, %s, seen, %s, awaits_pull from jsonb_to_recordset(%s) "
            "as told (record_id text, account_id text, confirmed jsonb, seen bigint, awaits_pull boolean) "
            "on conflict (target, record_id) do update set "
            "account_id = excluded.account_id, confirmed = held.confirmed || excluded.confirmed, "
            "confirmed_at = clock_timestamp(), sync_id = excluded.sync_id, seen = excluded.seen, "
            "proof = excluded.proof, gone_at = null, awaits_pull = held.awaits_pull or excluded.awaits_pull",
            [
                self.target,
                self.sync_id,
                proof,
                Jsonb(
                    [
                        {
                            "record_id": change.record_id,
                            "account_id": change.account_id,
                            "confirmed": change.values,
                            "seen": change.fingerprint,
                            "awaits_pull": is_new,
                        }
                        for change, is_new in changes
                    ]
                ),
            ],
        )

    def _write_deliveries(self, cursor: psycopg.Cursor, attempts: list[Attempt], proof: str) -> None:
        # Run and date are those of the sync that sent the value, which may be a crashed one.
        cursor.execute(
            "insert into sync.deliveries (sync_id, run_id, as_of_date, target, account_id, record_id, field, "
            "old_value, new_value, attempt_id, proof) "
            "select %s, runs.run_id, runs.as_of_date, attempt.target, attempt.account_id, attempt.record_id, "
            "field.name, told.old ->> field.name, field.value, attempt_id, %s "
            "from rows from (jsonb_to_recordset(%s) as (attempt_id uuid, old jsonb)) with ordinality "
            "as told (attempt_id, old, place) "
            "join sync.attempts as attempt using (attempt_id) join sync.runs as runs using (sync_id) "
            "cross join lateral jsonb_each_text(attempt.payload) as field (name, value) order by told.place",
            [
                self.sync_id,
                proof,
                Jsonb([{"attempt_id": str(each.attempt_id), "old": each.change.old} for each in attempts]),
            ],
        )

    def refuse(self, refusals: list[tuple[Attempt, str, str]], max_tries: int, is_own: bool = True) -> None:
        """Write rows the CRM said no to, each with reason and detail; the last try makes a dead letter.

        Rows that a crash left behind (not `is_own`) have no outcome in this sync: it plans them anew.
        """
        if not refusals:
            return
        with self.connection.transaction(), self.connection.cursor() as cursor:
            for attempt, reason, detail in refusals:
                self._settle([attempt], "refused", f"{reason}: {detail}")
                self._count_try(cursor, attempt.change, f"{reason}: {detail}", max_tries)
            if is_own:
                self._outcomes(
                    "failed", [(attempt.change, reason, detail) for attempt, reason, detail in refusals]
                )

    def forgotten(self, attempts: list[Attempt], max_tries: int) -> None:
        """Write rows the answer did not speak of: a failed try, left open so that the next sync settles them."""
        if not attempts:
            return
        reason = "missing_from_answer"
        with self.connection.transaction(), self.connection.cursor() as cursor:
            for attempt in attempts:
                self._count_try(cursor, attempt.change, reason, max_tries)
            self._outcomes("failed", [(attempt.change, reason, None) for attempt in attempts])

    def accounts_of(self, record_ids: list[str]) -> dict[str, str]:
        """Return record → account of those of the records that the ledger knows."""
        return dict(
            self.connection.execute(
                "select record_id, account_id from sync.ledger where target = %s and record_id = any(%s)",
                [self.target, record_ids],
            ).fetchall()
        )

    def forget(self, overwritten: dict[str, set[str]]) -> None:
        """Forget what records held in some of their fields, so that they are told it anew."""
        with self.connection.transaction(), self.connection.cursor() as cursor:
            cursor.executemany(
                "update sync.ledger set confirmed = confirmed - %s::text[] where target = %s and record_id = %s",
                [(sorted(fields), self.target, record_id) for record_id, fields in overwritten.items()],
            )

    def settle(self, attempts: list[Attempt], status: str, detail: str | None) -> None:
        """Close attempts that changed nothing: 'not_done' or 'not_landed'."""
        with self.connection.transaction():
            self._settle(attempts, status, detail)

    def fail(self, changes: list[Change], reason: str, detail: str) -> None:
        """Write rows that failed through no fault of theirs: it is not counted as a try."""
        with self.connection.transaction():
            self._outcomes("failed", [(change, reason, detail) for change in changes])

    def hold(self, changes: list[Change], reason: str, detail: str) -> None:
        """Write rows that were to be sent and are held after all."""
        with self.connection.transaction():
            self._outcomes("held", [(change, reason, detail) for change in changes])
            self.connection.execute(
                "update sync.runs set held = held + %s, failed = failed - %s where sync_id = %s",
                [len(changes), len(changes), self.sync_id],
            )

    def hold_changes(self, reason: str, detail: str) -> None:
        """Write all rows the noted plan was to send as held."""
        with self.connection.transaction():
            self.connection.execute(
                "insert into sync.outcomes (sync_id, account_id, record_id, outcome, reason, detail) "
                "select %s, account_id, record_id, 'held', %s, %s from pg_temp.planned "
                "where state = 'change' order by number",
                [self.sync_id, reason, detail],
            )
            self.connection.execute(
                "update sync.runs set held = held + failed, failed = 0 where sync_id = %s", [self.sync_id]
            )

    def open_attempts(self) -> list[Attempt]:
        """Return attempts without an answer, job by job and oldest first, with what the ledger held before them."""
        rows = self.connection.execute(
            "select attempt_id, attempt.account_id, record_id, payload, job_id, by_key, coalesce(confirmed, '{}') "
            "from sync.attempts as attempt left join sync.ledger using (target, record_id) "
            "where target = %s and status = 'open' order by job_id nulls first, attempted_at, attempt_id",
            [self.target],
        ).fetchall()
        return [
            Attempt(
                attempt_id,
                Change(
                    account_id,
                    record_id,
                    payload,
                    {k: v for k, v in held.items() if k in payload},
                    by_key=by_key,
                ),
                job_id,
            )
            for attempt_id, account_id, record_id, payload, job_id, by_key, held in rows
        ]

    def counts(self) -> tuple[int, int, int, int, int]:
        """Return queried, sent, unchanged, failed, held of this sync."""
        row = self.connection.execute(
            "select queried, sent, unchanged, failed, held from sync.runs where sync_id = %s", [self.sync_id]
        ).fetchone()
        return row  # type: ignore[return-value]

    def reasons(self) -> dict[str, int]:
        """Return reason → rows of what was neither sent nor unchanged in this sync."""
        rows = self.connection.execute(
            "select reason, count(*) from sync.outcomes where sync_id = %s group by reason order by reason",
            [self.sync_id],
        ).fetchall()
        return dict(rows)

    def _settle(self, attempts: list[Attempt], status: str, reason: str | None) -> None:
        self.connection.execute(
            "update sync.attempts set status = %s, reason = %s, answered_at = clock_timestamp() "
            "where attempt_id = any(%s)",
            [status, reason, [attempt.attempt_id for attempt in attempts]],
        )

    def _count_try(self, cursor: psycopg.Cursor, change: Change, reason: str, max_tries: int) -> None:
        cursor.execute(
            "insert into sync.failures as failure "
            "(target, record_id, account_id, tries, reason, payload, dead_at) "
            "values (%(target)s, %(record)s, %(account)s, 1, %(reason)s, %(payload)s, "
            "case when %(most)s <= 1 then clock_timestamp() end) "
            "on conflict (target, record_id) do update set tries = failure.tries + 1, "
            "account_id = excluded.account_id, reason = excluded.reason, payload = excluded.payload, "
            "last_failed_at = clock_timestamp(), "
            "dead_at = case when failure.tries + 1 >= %(most)s then clock_timestamp() end",
            {
                "target": self.target,
                "record": change.record_id,
                "account": change.account_id,
                "reason": reason,
                "payload": Jsonb(change.values),
                "most": max_tries,
            },
        )

    def _outcomes(self, outcome: str, rows: Iterable[tuple[Change, str, str | None]]) -> None:
        with self.connection.cursor() as cursor:
            cursor.executemany(
                "insert into sync.outcomes (sync_id, account_id, record_id, outcome, reason, detail) "
                "values (%s, %s, %s, %s, %s, %s)",
                [
                    (self.sync_id, row.account_id, row.record_id, outcome, reason, detail)
                    for row, reason, detail in rows
                ],
            )
