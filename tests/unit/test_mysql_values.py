"""Values and faults of MySQL and MariaDB, as PyMySQL gives them, become what the other databases' are."""

from datetime import UTC, date, datetime

import pymysql
import pytest
from pymysql.constants import FIELD_TYPE
from sqlalchemy.exc import DBAPIError

from include.errors import StratumError, TransientError
from include.sources.databases import _engine, _fault
from include.sources.mysql_values import DECODERS
from tests.fixtures.erp import database_orders


@pytest.mark.parametrize(
    ("kind", "given", "expected"),
    [
        (FIELD_TYPE.TIMESTAMP, "2024-03-01 09:00:00", datetime(2024, 3, 1, 9, tzinfo=UTC)),
        (FIELD_TYPE.DATETIME, "2024-03-01 09:00:00.25", datetime(2024, 3, 1, 9, 0, 0, 250_000)),
        (FIELD_TYPE.DATE, "2024-03-01", date(2024, 3, 1)),
        (FIELD_TYPE.TIMESTAMP, "0000-00-00 00:00:00", None),
        (FIELD_TYPE.DATETIME, "0000-00-00 00:00:00.000", None),
        (FIELD_TYPE.DATE, "0000-00-00", None),
        (FIELD_TYPE.DATE, "2024-03-00", "2024-03-00"),
        (FIELD_TYPE.BIT, b"\x01", 1),
        (FIELD_TYPE.BIT, b"\x01\x00", 256),
    ],
)
def test_a_value_loses_neither_its_zone_nor_its_meaning(kind: int, given: object, expected: object) -> None:
    assert DECODERS[kind](given) == expected


@pytest.mark.parametrize(
    ("number", "said", "kind", "told"),
    [
        (
            1045,
            "Access denied for user 'a'@'b' (using password: YES)",
            StratumError,
            "does not let Stratum in",
        ),
        (1142, "SELECT command denied to user 'a'", StratumError, "cannot be read: SELECT command denied"),
        (1792, "Cannot execute statement in a READ ONLY transaction", StratumError, "cannot be read: Cannot"),
        (
            1213,
            "Deadlock found when trying to get lock",
            TransientError,
            "did not answer to the end: Deadlock",
        ),
        (
            2013,
            "Lost connection to MySQL server during query",
            TransientError,
            "did not answer to the end: Lost",
        ),
    ],
)
def test_a_fault_is_told_by_its_number_and_not_by_its_class(
    number: int, said: str, kind: type, told: str
) -> None:
    raised = DBAPIError("select 1", None, pymysql.err.OperationalError(number, said))
    orders = database_orders().orders
    fault = _fault(raised, orders, "secret")  # type: ignore[arg-type]
    assert type(fault) is kind
    assert told in str(fault)
    assert "1, " not in str(fault)


def test_the_driver_gets_these_decoders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_ERP", "mysql://a:b@127.0.0.1:1/x")
    engine, _ = _engine("erp")
    seen: dict = {}
    monkeypatch.setattr(pymysql, "connect", lambda *_, **given: seen.update(given) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        engine.connect()
    assert seen["conv"] is DECODERS
