"""Fixtures of the tests of dbt: a company whose project is built, before any row came."""

from datetime import date

import psycopg
import pytest

from include.dbt import build
from include.sources.loads import bind_company
from include.warehouse import embedded
from include.warehouse.connect import connect
from tests.conftest import database_of, fresh_warehouse

NO_DATA = date(2024, 12, 28)
LAYERS = ("staging", "marts", "published")


@pytest.fixture(scope="session")
def without_data(cluster: embedded.Cluster, template: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of a database to copy: that of the simulated company, all layers built as of NO_DATA without a row."""
    name = "built_without_data"
    with fresh_warehouse(cluster, template, tmp_path_factory.mktemp("home")) as warehouse:
        with connect("loader") as connection:
            bind_company(connection, "Simulated market", "Asia/Shanghai", "CNY")
        for layer in LAYERS:
            build(layer, NO_DATA, f"run-{NO_DATA}")
        with psycopg.connect(cluster.url, autocommit=True) as connection:
            connection.execute(f"create database {name} template {database_of(warehouse)} strategy file_copy")
    return name
