"""Drop the rows of runs published long ago. The dated history keeps its rows for ever."""

import logging

from psycopg import sql
from psycopg.types.json import Jsonb

from include.errors import StratumError
from include.warehouse.connect import connect
from include.warehouse.history import changes
from include.warehouse.publish import CURRENT_TABLES, kept_runs, publisher_transaction

log = logging.getLogger(__name__)


def drop_old_runs(keep: int) -> list[str]:
    """Delete the rows of every kept run but the newest `keep` publishes and the current one; return their ids.

    Readers are never blocked and an older snapshot still sees the rows it began with. Each run dropped is
    recorded, and cannot be rolled back to any more. Raises StratumError where `keep` is below 1.
    """
    if keep < 1:
        raise StratumError(
            f"Cannot keep {keep} runs: keep at least 1 (2 or more leave something to roll back to)."
        )
    with publisher_transaction() as connection:
        row = connection.execute("select run_id from published.current_run").fetchone()
        old = [run for run in kept_runs(changes(connection))[:-keep] if row is None or run.run_id != row[0]]
        for run in old:
            deleted = {
                table: connection.execute(
                    sql.SQL("delete from {} where run_id = %s").format(
                        sql.Identifier("published", f"{table}_by_run")
                    ),
                    [run.run_id],
                ).rowcount
                for table in CURRENT_TABLES
            }
            connection.execute(
                "insert into audit.publishes (run_id, as_of_date, action, rows) values (%s, %s, 'drop', %s)",
                [run.run_id, run.as_of, Jsonb(deleted)],
            )
            log.info("Dropped run %s (as of %s): %s.", run.run_id, run.as_of, deleted)
    if old:
        _make_room()
    return [run.run_id for run in old]


def _make_room() -> None:
    """Give the deleted rows' space to the next publish; a table someone else is vacuuming is left to them."""
    with connect("publisher") as connection:
        connection.autocommit = True
        for table in CURRENT_TABLES:
            connection.execute(
                sql.SQL("vacuum (analyze, skip_locked, truncate false) {}").format(
                    sql.Identifier("published", f"{table}_by_run")
                )
            )
