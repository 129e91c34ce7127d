"""Bring a warehouse to the newest schema: numbered migrations, then roles, then grants."""

from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from include.warehouse.connect import ROLES, open_connection, with_login
from include.warehouse.roles import DEFAULT_READERS, create_roles, grant_all, grant_defaults, role_name

MIGRATIONS = Path(__file__).parent / "migrations"


def migrate(owner_url: str, passwords: dict[str, str]) -> dict[str, str]:
    """Migrate the warehouse at `owner_url` and return the URL of each role (name of ROLES → URL).

    Safe to run again: nothing changes where nothing is missing. `passwords` maps every name of ROLES.
    Where the owner may not create roles, every role's URL is the owner's: all works, nothing is separated.
    """
    with open_connection(owner_url, "stratum migrate") as connection:
        connection.execute("create schema if not exists audit")
    _upgrade(owner_url)
    with open_connection(owner_url, "stratum migrate") as connection:
        try:
            with connection.transaction():
                create_roles(connection, passwords)
        except psycopg.errors.InsufficientPrivilege:
            return dict.fromkeys(ROLES, owner_url)
        grant_all(connection)
    urls = {role: with_login(owner_url, role_name(role), passwords[role]) for role in ROLES}
    for creator in {creator for creator, _ in DEFAULT_READERS}:
        with open_connection(urls[creator], "stratum migrate") as connection:
            grant_defaults({creator: connection})
    return urls


def _upgrade(owner_url: str) -> None:
    engine = create_engine(owner_url.replace("postgresql://", "postgresql+psycopg://", 1), poolclass=NullPool)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.commit()
