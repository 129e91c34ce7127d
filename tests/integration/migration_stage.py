"""A database as it was at an earlier migration, for tests of what the later ones do to the rows it holds."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from alembic import command
from alembic.config import Config
from psycopg import sql
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from include.warehouse.connect import with_database
from include.warehouse.migrate import MIGRATIONS
from tests.conftest import Warehouse, embedded


@contextmanager
def database_at(revision: str, warehouse: Warehouse, cluster: embedded.Cluster) -> Iterator[str]:
    """Make an empty database at a migration beside the warehouse's, yield its owner's URL, and drop it."""
    name = f"{psycopg.conninfo.conninfo_to_dict(warehouse.owner_url)['dbname']}_{revision}"
    before = with_database(cluster.url, name)
    with psycopg.connect(cluster.url, autocommit=True) as connection:
        connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
    try:
        with psycopg.connect(before) as connection:
            connection.execute("create schema audit")
        _upgrade(before, revision)
        yield before
    finally:
        with psycopg.connect(cluster.url, autocommit=True) as connection:
            connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def _upgrade(url: str, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1), poolclass=NullPool)
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        connection.commit()
