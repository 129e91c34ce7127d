"""Connections: each role its own, and no password where it can be read."""

import pytest

from include.errors import StratumError, TransientError
from include.warehouse.connect import open_connection, printable, role_url, with_database, with_login

URL = "postgresql://owner:pass%2Fword@127.0.0.1:1/stratum?sslmode=disable"


def test_a_printed_url_has_no_password() -> None:
    assert printable(URL) == "postgresql://owner@127.0.0.1:1/stratum?sslmode=disable"
    assert printable("postgresql://127.0.0.1/x") == "postgresql://127.0.0.1/x"


def test_another_login_keeps_host_database_and_options() -> None:
    assert (
        with_login(URL, "a b", "p@ss:/")
        == "postgresql://a%20b:p%40ss%3A%2F@127.0.0.1:1/stratum?sslmode=disable"
    )
    assert with_database(URL, "other").endswith("@127.0.0.1:1/other?sslmode=disable")


def test_a_server_that_is_down_is_told_in_one_line_without_the_password() -> None:
    with pytest.raises(TransientError) as raised:
        open_connection(URL, "test")
    assert "pass" not in str(raised.value)
    assert "\n" not in str(raised.value)
    assert "cannot be reached" in str(raised.value)


def test_a_role_without_a_connection_says_which_variable_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_STRATUM_LOADER", raising=False)
    with pytest.raises(StratumError, match="AIRFLOW_CONN_STRATUM_LOADER"):
        role_url("loader")


def test_a_role_that_is_none_is_a_defect_of_the_caller() -> None:
    with pytest.raises(ValueError, match="nobody"):
        role_url("nobody")
