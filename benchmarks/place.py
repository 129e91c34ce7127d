"""Where the benchmarks work: a PostgreSQL of their own, and a migrated database for each part of them."""

import json
import multiprocessing
import os
import socket
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
import psycopg
from psycopg import sql

from benchmarks.data import Size
from benchmarks.meter import Meter
from include.settings import get_settings
from include.warehouse import embedded
from include.warehouse.connect import OWNER, ROLES, role_url, variable, with_database, with_login
from include.warehouse.migrate import migrate
from include.warehouse.roles import role_name

PASSWORD = "benchmark"  # noqa: S105 - of a server that lives as long as the benchmarks, on loopback


@dataclass(frozen=True)
class Row:
    """One line of bench.json. Times in seconds, memory in MB; `ratio` is wall_s / floor_s.

    `slowest` are the models of a build that took longest, with their wall seconds, the slowest first.
    """

    name: str
    size: str
    rows: int
    wall_s: float
    cpu_s: float
    peak_mb: float
    floor: str
    floor_s: float
    ratio: float
    slowest: tuple[tuple[str, float], ...] = ()

    def json(self) -> dict[str, object]:
        """Return the row as bench.json holds it; `slowest` in those of builds alone."""
        return {
            key: round(value, 3) if isinstance(value, float) else value
            for key, value in asdict(self).items()
            if key != "slowest" or value
        }


@dataclass(frozen=True)
class Place:
    """One database of the benchmarks' server, and the company whose rows it holds."""

    size: Size
    home: Path
    sources: Path
    port: int
    database: str

    @property
    def cluster(self) -> embedded.Cluster:
        """The benchmarks' own server."""
        return embedded.Cluster(
            self.home / "postgres" / "data", self.port, PASSWORD, embedded.server_programs(None)
        )

    @property
    def owner_url(self) -> str:
        """The URL of the database's owner."""
        return with_database(self.cluster.url, self.database)

    def make(self, template: str | None = None) -> None:
        """Make the database anew: empty and migrated, or a copy of another."""
        names = (sql.Identifier(self.database), sql.Identifier(template or "template1"))
        with psycopg.connect(self.cluster.url, autocommit=True) as server:
            server.execute(sql.SQL("drop database if exists {} with (force)").format(names[0]))
            server.execute(sql.SQL("create database {} template {}").format(*names))
        migrate(self.owner_url, dict.fromkeys(ROLES, PASSWORD))

    def enter(self) -> None:
        """Let this process's connections and settings be those of this place."""
        urls = {role: with_login(self.owner_url, role_name(role), PASSWORD) for role in ROLES}
        os.environ.update({variable(role): url for role, url in {**urls, OWNER: self.owner_url}.items()})
        os.environ["STRATUM_HOME"] = str(self.home)
        get_settings.cache_clear()

    def meter(self) -> Meter:
        """Return a meter of this process and the server."""
        pid = int((self.cluster.data / "postmaster.pid").read_text().splitlines()[0])
        return Meter([psutil.Process(pid)])

    def row(
        self,
        name: str,
        rows: int,
        meter: Meter,
        floor: str,
        floor_s: float,
        slowest: tuple[tuple[str, float], ...] = (),
    ) -> Row:
        """Return the line of a case."""
        figures = (meter.wall_s, meter.cpu_s, meter.peak_mb, floor, floor_s, meter.wall_s / floor_s)
        return Row(name, self.size.name, rows, *figures, slowest)

    def run(self, case: Callable[["Place"], list[Row]]) -> list[Row]:
        """Run a case in a process of its own, so that memory and imports of one do not count for the next."""
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
            return pool.submit(_in_place, self, case).result()


def _in_place(place: Place, case: Callable[[Place], list[Row]]) -> list[Row]:
    place.enter()
    return case(place)


def as_owner() -> psycopg.Connection:
    """Return a connection of the owner, to set the stage and for the floors."""
    return psycopg.connect(role_url(OWNER), autocommit=True)


def settle() -> None:
    """Let PostgreSQL write and analyse what was loaded, so that the next figure does not pay for it."""
    with as_owner() as owner:
        owner.execute("vacuum (analyze)")
        owner.execute("checkpoint")


def value(query: str, *arguments: object) -> int:
    """Return the one number of a query."""
    with as_owner() as owner:
        row = owner.execute(query, arguments or None).fetchone()
    return int(row[0]) if row else 0


def free_port() -> int:
    """Return a loopback port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write_json(path: Path, rows: list[Row]) -> None:
    """Write the rows of this size into bench.json; those of another size stay."""
    held: list[dict[str, object]] = []
    with suppress(FileNotFoundError, ValueError):
        held = json.loads(path.read_text())
    sizes = {row.size for row in rows}
    kept = [row for row in held if row["size"] not in sizes]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(kept + [row.json() for row in rows], indent=1) + "\n")
