"""The calibrations of the tiers: which there are, and the one way to have one made anew."""

from datetime import date
from typing import Any

import psycopg
from psycopg.rows import dict_row

from include.errors import StratumError
from include.warehouse.connect import connect
from include.warehouse.lock import keep_builds_out


def calibrations() -> list[dict[str, Any]]:
    """Return every calibration, the newest first, by scope: its days, its accounts, where it cuts, its fingerprint."""
    with connect("transformer") as connection:
        if not _is_there(connection):
            return []
        cursor = connection.cursor(row_factory=dict_row)
        return cursor.execute(
            "select * from intermediate.int_tier_calibrations order by quarter_start desc, scope"
        ).fetchall()


def recalibrate(quarter_start: date, why: str) -> int:
    """Take the calibration of a quarter away, so that the next build of a date in it makes it anew.

    What it was is kept in audit.recalibrations; what was published stands. Returns the number of its scopes. Raises
    StratumError where `why` is empty or the quarter has no calibration, TransientError while a build is at work.
    """
    if not why.strip():
        raise StratumError("Say why it is to be made anew: --why 'orders of March were loaded in May'.")
    with connect("transformer") as connection:
        keep_builds_out(connection, f"the calibration for {quarter_start} cannot be taken away")
        taken = []
        if _is_there(connection):
            taken = connection.execute(
                "delete from intermediate.int_tier_calibrations where quarter_start = %s "
                "returning quarter_start, scope, accounts, fingerprint, run_id",
                [quarter_start],
            ).fetchall()
            connection.execute(
                "delete from intermediate.int_tier_calibration_accounts where quarter_start = %s",
                [quarter_start],
            )
        if not taken:
            raise StratumError(
                f"There is no calibration of a quarter that begins on {quarter_start}. List them: stratum tiers list"
            )
        with connection.cursor() as cursor:
            cursor.executemany(
                "insert into audit.recalibrations (quarter_start, scope, accounts, fingerprint, made_by_run_id, why) "
                "values (%s, %s, %s, %s, %s, %s)",
                [(*row, " ".join(why.split())) for row in taken],
            )
    return len(taken)


def _is_there(connection: psycopg.Connection) -> bool:
    found = connection.execute(
        "select 1 where to_regclass('intermediate.int_tier_calibrations') is not null"
    ).fetchone()
    return found is not None
