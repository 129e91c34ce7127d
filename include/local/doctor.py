"""Look an installation over: one finding per check, with what to do about it. Nothing is changed or healed.

The embedded server is started for the look where it is down; the warehouse is not migrated and no password is set.
No finding shows a secret.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import psycopg
from alembic.config import Config
from alembic.script import ScriptDirectory

from include.connections import database_url, get_connection
from include.errors import StratumError
from include.local import condition
from include.local.airflow_care import building, lost_builds
from include.local.preparation import POOLS
from include.local.stack import Stack
from include.settings import PROJECT_DIR
from include.sources.config import Sources
from include.sources.row_sources import FileSource
from include.sync.switches import known_targets, left_targets, status_of
from include.warehouse import embedded
from include.warehouse.connect import OWNER, ROLES, connect, open_connection, variable, with_login
from include.warehouse.lock import holder_now
from include.warehouse.migrate import MIGRATIONS
from include.warehouse.roles import OWN, SCHEMA_GRANTS, TABLE_GRANTS, role_name

OK, FAIL, SKIP = "OK", "FAIL", "-"
PYTHON = (3, 11)
MIN_FREE_BYTES = 2 * 1024**3
"""A first full build of some ten million rows writes about this much before the old files are gone."""
LOCK_LINE = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^ \\;]+)", re.MULTILINE)
PRIVILEGES = ("select", "insert", "update", "delete")


@dataclass(frozen=True)
class Finding:
    """One check: OK, FAIL, or `-` where there was nothing to look at; and what was seen, and what to do."""

    check: str
    state: str
    says: str


Look = Callable[[], str]
"""A check: returns what it saw. Raises StratumError with what is wrong and what to do, _Skipped where idle."""


class _Skipped(Exception):
    """There is nothing to look at; the text says why."""


def examine(stack: Stack, read_sources: Callable[[], Sources]) -> list[Finding]:
    """Make every check of an installation, in order, and return what each found. Raises nothing for a fault.

    `read_sources` reads the sources in force. The embedded server is up while the warehouse is looked at, and
    stopped again where this started it.
    """
    here: list[tuple[str, Look]] = [
        ("python", python),
        ("packages", packages),
        ("home", lambda: home(stack)),
        ("ports", lambda: ports(stack)),
        ("sources", lambda: sources(read_sources)),
    ]
    findings = [_look(name, look) for name, look in here]
    with _warehouse(stack) as opened:
        findings.append(opened)
        reachable = opened.state == OK
        findings += [
            _look(name, look) if reachable else Finding(name, SKIP, "the warehouse cannot be read")
            for name, look in _of_warehouse(stack, read_sources)
        ]
        up = reachable and condition.airflow(stack)["api-server"]["status"] == "healthy"
        findings.append(_look("airflow", lambda: airflow(stack)))
        findings += [
            _look(name, look) if up else Finding(name, SKIP, "Airflow is not up (start it: make up)")
            for name, look in _of_airflow(stack)
        ]
    return findings


def _of_warehouse(stack: Stack, read_sources: Callable[[], Sources]) -> list[tuple[str, Look]]:
    return [
        ("migrations", lambda: migrations(stack)),
        ("roles", lambda: roles(stack)),
        ("grants", lambda: grants(stack)),
        ("build lock", lambda: build_lock(stack)),
        ("sync attempts", sync_attempts),
        ("sync holds", sync_holds),
        ("sync targets", lambda: sync_targets(read_sources)),
    ]


def _of_airflow(stack: Stack) -> list[tuple[str, Look]]:
    return [
        ("dag files", lambda: dag_files(stack)),
        ("pools", lambda: pools(stack)),
        ("lost builds", lambda: builds(stack)),
    ]


def _look(name: str, look: Look) -> Finding:
    try:
        return Finding(name, OK, look())
    except _Skipped as skipped:
        return Finding(name, SKIP, str(skipped))
    except StratumError as error:
        return Finding(name, FAIL, str(error))
    except psycopg.Error as error:
        return Finding(name, FAIL, f"The warehouse refused the look: {str(error).strip().splitlines()[0]}")


def python() -> str:
    """Check the version of Python."""
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] != PYTHON:
        raise StratumError(
            f"Python {found}; Stratum is proved on 3.11. Make the environment with it: make install"
        )
    return f"Python {found}"


def packages() -> str:
    """Check that what is installed is what the lock file names."""
    lock = PROJECT_DIR / "requirements" / "runtime.lock"
    wanted = dict(LOCK_LINE.findall(lock.read_text()))
    wrong = [
        f"{name} is {found or 'missing'}, not {pinned}"
        for name, pinned in wanted.items()
        if (found := _installed(name)) != pinned
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise StratumError(
            f"Not the locked packages: {'; '.join(wrong[:3])}{more}. Install them: make install"
        )
    return f"{len(wanted)} packages as locked"


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def home(stack: Stack) -> str:
    """Check that the home can be written and has room."""
    folder = stack.settings.home
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise StratumError(
            f"{folder} cannot be written ({error.strerror}). Free its disk, give yourself the right, or set STRATUM_HOME."
        ) from error
    free = shutil.disk_usage(folder).free
    if free < MIN_FREE_BYTES:
        raise StratumError(
            f"The disk of {folder} has {free / 1024**3:.1f} GB free; {MIN_FREE_BYTES / 1024**3:.0f} GB are wanted. Free "
            "some, let housekeeping keep less (include/warehouse/retention.csv), or move STRATUM_HOME."
        )
    return f"{folder}, {free / 1024**3:.1f} GB free"


def ports(stack: Stack) -> str:
    """Check that each port of ours is free, or used by us."""
    settings = stack.settings
    if settings.airflow_url:
        raise _Skipped("others run Airflow, no port of this machine is needed")
    wanted = [
        (settings.postgres_port, "PostgreSQL", "STRATUM_POSTGRES_PORT", condition.postgres(stack) != "down"),
        (settings.airflow_port, "Airflow", "STRATUM_AIRFLOW_PORT", stack.airflow[0].find() is not None),
        (settings.sandbox_port, "the CRM sandbox", "STRATUM_SANDBOX_PORT", stack.sandbox.find() is not None),
    ]
    for port, what, setting, is_ours in wanted:
        if not is_ours:
            embedded.assert_port_free(port, what, setting)
    return ", ".join(f"{port} {'ours' if is_ours else 'free'}" for port, _, _, is_ours in wanted)


def sources(read_sources: Callable[[], Sources]) -> str:
    """Check that the sources can be read, their files are there and their connections known."""
    found = read_sources()
    parts = []
    for part in (found.orders, found.behavior):
        if isinstance(part, FileSource) and "://" in part.file:
            parts.append(f"{part.section} at {part.file}, which `stratum sources check` looks at")
        elif isinstance(part, FileSource):
            parts.append(f"{len(part.files())} files of {part.section}")
        elif part is not None:
            database_url(part.connection)
            parts.append(f"{part.section} from {part.origin}")
    for connected in (found.crm, *found.sync.values()):
        if connected is not None:
            get_connection(connected.connection)
            parts.append(connected.connection)
    return f"{found.company.name}: {', '.join(dict.fromkeys(parts)) or 'no source is configured'}"


@contextmanager
def _warehouse(stack: Stack) -> Iterator[Finding]:
    """Have the server up and the roles' URLs known, without migrating; yields how that went."""
    try:
        started = False
        if condition.postgres(stack) == "down":
            _check_data(stack.cluster)
            started = stack.start_server()
        _know_roles(stack)
        with open_connection(stack.owner_url, "stratum doctor") as connection:
            server = connection.info.server_version // 10000
        yield Finding("warehouse", OK, f"PostgreSQL {server}{', started for the look' if started else ''}")
    except StratumError as error:
        yield Finding("warehouse", FAIL, str(error))
    finally:
        stack.down_started()


def _check_data(cluster: embedded.Cluster) -> None:
    """Check, before the server is started, that its data are there and of the version of its programs."""
    mark = cluster.data / "PG_VERSION"
    if not mark.exists():
        raise StratumError(f"{cluster.data} holds no warehouse yet. Make one: make demo, or make up")
    data, programs = mark.read_text().strip(), _programs_version(cluster)
    if data != programs:
        raise StratumError(
            f"The data in {cluster.data} are of PostgreSQL {data} and the server programs of {programs}. Point "
            f"STRATUM_POSTGRES_BIN at programs of {data}."
        )


def _programs_version(cluster: embedded.Cluster) -> str:
    told = subprocess.run(
        [cluster.bin / "postgres", "--version"], capture_output=True, text=True, check=False
    )
    return told.stdout.split()[-1].partition(".")[0] if told.stdout else "unknown"


def _know_roles(stack: Stack) -> None:
    """Put the roles' URLs where `connect` finds them, from the secrets alone."""
    for role in ROLES:
        url = with_login(stack.owner_url, role_name(role), stack.secrets[f"role_{role}"])
        os.environ[variable(role)] = stack.owner_url if _one_role(stack) else url
    os.environ[variable(OWNER)] = stack.owner_url


def _one_role(stack: Stack) -> bool:
    """Tell whether the server has none of our roles: the owner may not create any, and does all."""
    with open_connection(stack.owner_url, "stratum doctor") as connection:
        known = connection.execute(
            "select from pg_roles where rolname = any(%s)", [[role_name(role) for role in ROLES]]
        ).fetchone()
        may = connection.execute(
            "select rolcreaterole or rolsuper from pg_roles where rolname = current_user"
        ).fetchone()
    return known is None and may is not None and not may[0]


def migrations(stack: Stack) -> str:
    """Check that the warehouse has every migration this code knows, and no newer one."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    head = ScriptDirectory.from_config(config).get_current_head()
    with open_connection(stack.owner_url, "stratum doctor") as connection:
        if connection.execute("select to_regclass('audit.schema_version')").fetchone() == (None,):
            raise StratumError(
                "The warehouse was never migrated. Any command that starts it does that: make up"
            )
        row = connection.execute("select version_num from audit.schema_version").fetchone()
    if row is None or row[0] != head:
        raise StratumError(
            f"The warehouse is at migration {row[0] if row else 'none'}, the code at {head}. `make up` migrates it; "
            "where the warehouse is ahead, install the newer Stratum again."
        )
    return f"at {head}"


def roles(stack: Stack) -> str:
    """Check that each part can log in as its own role."""
    if _one_role(stack):
        return "one role for all: the owner may not create roles. All works; nothing is separated"
    shut_out = []
    for role in ROLES:
        try:
            with connect(role):
                pass
        except StratumError:
            shut_out.append(role_name(role))
    if shut_out:
        raise StratumError(
            f"{', '.join(shut_out)} cannot log in: missing, or with another password than "
            f"{stack.settings.home}/secrets.json. Starting Stratum sets it right: make up"
        )
    return f"all {len(ROLES)} can log in"


def grants(stack: Stack) -> str:
    """Check that the roles may do on our tables what the matrix says, no less and no more."""
    if _one_role(stack):
        raise _Skipped("one role for all: there is nothing to separate")
    schemas = sorted({schema for _, schema in SCHEMA_GRANTS})
    with open_connection(stack.owner_url, "stratum doctor") as connection:
        held = connection.execute(
            "select role, schemaname || '.' || tablename, privilege from pg_tables "
            "cross join unnest(%s::text[]) as role cross join unnest(%s::text[]) as privilege "
            "where schemaname = any(%s) and tableowner = current_user "
            "and has_table_privilege('stratum_' || role, format('%%I.%%I', schemaname, tablename), privilege)",
            [list(ROLES), list(PRIVILEGES), schemas],
        ).fetchall()
        tables = connection.execute(
            "select schemaname, tablename from pg_tables where schemaname = any(%s) and tableowner = current_user",
            [schemas],
        ).fetchall()
    wanted = {
        (role, f"{schema}.{table}", privilege)
        for schema, table in tables
        for role in ROLES
        for privilege in (*_of(SCHEMA_GRANTS, role, schema), *_of(TABLE_GRANTS, role, f"{schema}.{table}"))
    }
    wrong = [f"{role} may not {what} {table}" for role, table, what in sorted(wanted - set(held))]
    wrong += [f"{role} may {what} {table}" for role, table, what in sorted(set(held) - wanted)]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise StratumError(
            f"Grants differ from docs/contracts/roles.md: {'; '.join(wrong[:3])}{more}. Starting Stratum heals them: "
            "make up"
        )
    return f"{len(wanted)} grants on {len(tables)} tables as written"


def _of(matrix: dict[tuple[str, str], tuple[str, ...]], role: str, on: str) -> tuple[str, ...]:
    privileges = matrix.get((role, on), ())
    return () if privileges == OWN else privileges


def build_lock(stack: Stack) -> str:
    """Check that who holds the build lock is at work."""
    holder = holder_now()
    if holder is None:
        return "free"
    facts = condition.books()["build_lock"]
    if facts["lease_ended"]:
        raise StratumError(
            f"Run {holder.run_id} (as of {holder.as_of}) died: its lease ended at {holder.lease_until:%H:%M:%S %Z}. The "
            f"next build takes the lock over; now: stratum run --as-of {holder.as_of}, or stratum unlock"
        )
    if condition.airflow(stack)["scheduler"]["status"] != "healthy":
        raise StratumError(
            f"The lock is held by {holder}, and no scheduler runs to go on with it: stratum run --as-of {holder.as_of}, or "
            "stratum unlock"
        )
    if building(stack.api(), holder.as_of) is None:
        raise StratumError(
            f"The lock is held by {holder}, and Airflow has no run at work for it (marked failed by hand?): stratum unlock"
        )
    return f"held by {holder}, at work"


def sync_attempts() -> str:
    """Check that no attempt to tell the CRM is without an answer while no sync is at work."""
    with connect("auditor") as connection:
        row = connection.execute(
            "select count(*) filter (where attempts.status = 'open'), "
            "(select count(*) from sync.runs where status = 'running'), "
            "(select count(*) from sync.failures where dead_at is not null) from sync.attempts"
        ).fetchone()
    attempts, at_work, dead = row if row else (0, 0, 0)
    if attempts and not at_work:
        raise StratumError(
            f"{attempts} attempts to tell the CRM have no answer. The next sync reads the CRM and settles them: run the "
            "published date again (stratum run --as-of DATE; docs/runbooks/sync.md)"
        )
    return f"{attempts} open, {dead} dead letters" + (" (stratum sync replay)" if dead else "")


def sync_holds() -> str:
    """Check that no sync waits for a person; a target that is switched off is told, for somebody meant it."""
    standing = [status_of(target) for target in known_targets()]
    waiting = [f"hold {one['hold']['hold_id']} of {one['target']}" for one in standing if one["hold"]]
    if waiting:
        raise StratumError(
            f"Nothing is sent until somebody answers {', '.join(waiting)}. Why it is held: stratum sync status; then "
            "stratum sync approve, or reject, --reason TEXT (docs/runbooks/sync.md)"
        )
    off = [f"{one['target']} by {one['switch']['switched_by']}" for one in standing if one["switch"]]
    return "none" + (f"; switched off: {', '.join(off)} (stratum sync start)" if off else "")


def sync_targets(read_sources: Callable[[], Sources]) -> str:
    """Look for targets that were told and are in no sync.yml any more; nothing is wrong with it where it was meant."""
    try:
        named = [mapping.target for mapping in read_sources().sync.values()]
    except StratumError as error:
        raise _Skipped("the sources cannot be read") from error
    left = [f"{target} ({records:,} records)" for target, records in left_targets(named).items()]
    if not left:
        return f"{len(named)} in sync.yml"
    return (
        f"{len(named)} in sync.yml; told before and named there no more: {', '.join(left)}. What they hold stays as it was: "
        "name them again, or clear it in the CRM"
    )


def airflow(stack: Stack) -> str:
    """Check that Airflow's parts are all up, or none."""
    parts = condition.airflow(stack)
    down = [name for name, part in parts.items() if part["status"] != "healthy"]
    if len(down) == len(parts):
        raise _Skipped("not running (start it: make up)")
    if down:
        raise StratumError(
            f"{' and '.join(down)} {'do' if len(down) > 1 else 'does'} not run, so nothing goes on. Start what is missing: "
            f"make up; its log is {stack.settings.home}/run/{down[0]}.log"
        )
    return ", ".join(f"{name} {part['status']}" for name, part in parts.items())


def dag_files(stack: Stack) -> str:
    """Check that Airflow reads every DAG file."""
    api = stack.api()
    if errors := api.import_errors():
        raise StratumError(f"A DAG does not import: {'; '.join(errors)}")
    wanted = {path.stem for path in (PROJECT_DIR / "dags").glob("*.py")}
    if missing := wanted - api.dag_ids():
        raise StratumError(
            f"Airflow has not read {', '.join(sorted(missing))}: is its DAG processor up? make up"
        )
    return f"{len(wanted)} DAGs"


def pools(stack: Stack) -> str:
    """Check that the pools that keep writers and announcements apart have one slot each."""
    found = stack.api().pools()
    wrong = [f"{name} has {found.get(name, 'none')}" for name in POOLS if found.get(name) != 1]
    if wrong:
        raise StratumError(
            f"Pools must have one slot each: {'; '.join(wrong)}. Starting Stratum sets it: make up"
        )
    return ", ".join(f"{name} 1" for name in POOLS)


def builds(stack: Stack) -> str:
    """Check that every date that all sources announced was built, or is being built."""
    if lost := lost_builds(stack.api()):
        dates = ", ".join(map(str, lost))
        raise StratumError(
            f"All sources announced {dates}, and no build began. Start the DAG housekeeping, or run it: "
            f"stratum run --as-of {lost[0]}"
        )
    return "none"
