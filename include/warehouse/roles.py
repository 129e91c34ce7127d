"""The roles and what each may do: the grant matrix. docs/contracts/roles.md says why."""

import psycopg
from psycopg import sql

from include.warehouse.connect import ROLES

READ = ("select",)
APPEND = ("select", "insert")
CHANGE = ("select", "insert", "update", "delete")
OWN = ("create",)  # makes its own tables there, and owns those alone

# (role, schema): the privileges on every table in it; OWN is a privilege on the schema itself.
SCHEMA_GRANTS: dict[tuple[str, str], tuple[str, ...]] = {
    ("loader", "raw_files"): APPEND,
    ("loader", "raw_hubspot"): APPEND,
    ("loader", "raw_salesforce"): APPEND,
    ("loader", "raw_bottlecrm"): APPEND,
    ("loader", "quarantine"): CHANGE,
    ("transformer", "raw_files"): READ,
    ("transformer", "raw_hubspot"): READ,
    ("transformer", "raw_salesforce"): READ,
    ("transformer", "raw_bottlecrm"): READ,
    ("transformer", "staging"): OWN,
    ("transformer", "intermediate"): OWN,
    ("transformer", "identity"): OWN,
    ("transformer", "marts"): OWN,
    ("transformer", "candidate"): OWN,
    ("scorer", "ml"): APPEND,
    ("publisher", "published"): OWN,
    ("syncer", "sync"): CHANGE,
    ("housekeeper", "raw_files"): ("select", "delete"),
    ("housekeeper", "raw_hubspot"): ("select", "delete"),
    ("housekeeper", "raw_salesforce"): ("select", "delete"),
    ("housekeeper", "raw_bottlecrm"): ("select", "delete"),
    ("housekeeper", "quarantine"): ("select", "update", "delete"),
    ("auditor", "quarantine"): READ,
    ("auditor", "sync"): READ,
    ("auditor", "ml"): READ,
    ("auditor", "audit"): READ,
}

# (role, table): where a whole schema would be too much.
TABLE_GRANTS: dict[tuple[str, str], tuple[str, ...]] = {
    ("loader", "audit.company"): APPEND,
    ("loader", "audit.loads"): CHANGE,
    ("loader", "audit.load_reasons"): APPEND,
    ("loader", "audit.cursors"): APPEND,
    ("loader", "audit.housekeeping"): READ,
    ("loader", "audit.accepted_columns"): READ,
    ("loader", "audit.source_columns"): READ,
    ("loader", "intermediate.account_day_queue"): APPEND,
    ("loader", "intermediate.usage_day_queue"): APPEND,
    ("loader", "intermediate.restatement_queue"): APPEND,
    ("loader", "sync.call_windows"): ("select", "insert", "update"),
    ("transformer", "identity.decisions_in_force"): READ,
    ("transformer", "audit.company"): READ,
    ("transformer", "audit.loads"): READ,
    ("transformer", "audit.load_reasons"): READ,
    ("transformer", "audit.runs"): ("select", "insert", "update"),
    ("transformer", "audit.build_lock"): CHANGE,
    ("transformer", "audit.backfill_requests"): READ,
    ("transformer", "audit.housekeeping"): READ,
    ("transformer", "audit.checks"): APPEND,
    ("transformer", "audit.dbt_nodes"): APPEND,
    ("transformer", "audit.recalibrations"): APPEND,
    ("transformer", "intermediate.account_day_queue"): CHANGE,
    ("transformer", "intermediate.usage_day_queue"): CHANGE,
    ("transformer", "intermediate.restatement_queue"): CHANGE,
    ("transformer", "ml.calibration_drift"): READ,
    ("transformer", "ml.drift"): READ,
    ("transformer", "ml.runs"): READ,
    ("transformer", "ml.scores"): READ,
    ("transformer", "ml.cluster_fits"): READ,
    ("transformer", "ml.clusters"): READ,
    ("transformer", "ml.cluster_runs"): READ,
    ("transformer", "ml.account_clusters"): READ,
    ("transformer", "ml.cluster_medians"): READ,
    ("transformer", "ml.recommendation_runs"): READ,
    ("transformer", "ml.recommendation_fits"): READ,
    ("transformer", "ml.recommendations"): READ,
    ("transformer", "ml.popular_products"): READ,
    ("transformer", "published.history_run"): READ,
    ("transformer", "sync.runs"): READ,
    ("transformer", "sync.outcomes"): READ,
    ("scorer", "audit.loads"): READ,
    ("scorer", "audit.company"): READ,
    ("scorer", "published.history_run"): READ,
    ("scorer", "ml.drift"): ("delete",),
    ("scorer", "ml.metrics"): ("delete",),
    ("scorer", "ml.runs"): ("delete",),
    ("scorer", "ml.scores"): ("delete",),
    ("scorer", "ml.cluster_runs"): ("delete",),
    ("scorer", "ml.account_clusters"): ("delete",),
    ("scorer", "ml.cluster_medians"): ("delete",),
    ("scorer", "ml.recommendation_runs"): ("delete",),
    ("publisher", "audit.company"): READ,
    ("publisher", "audit.runs"): ("select", "update"),
    ("publisher", "audit.build_lock"): CHANGE,
    ("publisher", "audit.backfill_requests"): ("select", "delete"),
    ("publisher", "audit.checks"): APPEND,
    ("publisher", "audit.publishes"): APPEND,
    ("publisher", "published.current_run"): ("select", "insert", "update"),
    ("publisher", "published.history_run"): CHANGE,
    ("syncer", "published.current_run"): READ,
    ("syncer", "audit.checks"): APPEND,
    ("housekeeper", "identity.decisions"): APPEND,
    ("housekeeper", "identity.decisions_in_force"): READ,
    ("housekeeper", "audit.company"): READ,
    ("housekeeper", "audit.loads"): ("select", "update"),
    ("housekeeper", "audit.accepted_columns"): APPEND,
    ("housekeeper", "audit.cursors"): ("select", "update"),
    ("housekeeper", "audit.runs"): READ,
    ("housekeeper", "audit.build_lock"): ("select", "delete"),
    ("housekeeper", "audit.backfill_requests"): ("select", "insert", "delete"),
    ("housekeeper", "audit.checks"): ("select", "delete"),
    ("housekeeper", "audit.dbt_nodes"): ("select", "delete"),
    ("housekeeper", "audit.publishes"): READ,
    ("housekeeper", "audit.housekeeping"): APPEND,
    ("housekeeper", "raw_files.event_files"): ("update",),
    ("housekeeper", "raw_files.superseded_events"): ("update",),
    ("housekeeper", "intermediate.account_day_queue"): APPEND,
    ("housekeeper", "intermediate.usage_day_queue"): APPEND,
    ("housekeeper", "intermediate.restatement_queue"): APPEND,
    ("housekeeper", "ml.scores"): ("select", "delete"),
    ("housekeeper", "ml.drift"): ("select", "delete"),
    ("housekeeper", "ml.cluster_runs"): ("select", "delete"),
    ("housekeeper", "ml.account_clusters"): ("select", "delete"),
    ("housekeeper", "ml.cluster_medians"): ("select", "delete"),
    ("housekeeper", "ml.recommendations"): ("select", "delete"),
    ("housekeeper", "ml.recommendation_runs"): READ,
    ("housekeeper", "published.current_run"): READ,
    ("housekeeper", "published.history_run"): READ,
    ("bi_reader", "published.current_run"): READ,
    ("auditor", "identity.decisions"): READ,
    ("auditor", "identity.decisions_in_force"): READ,
    ("auditor", "published.current_run"): READ,
    ("auditor", "published.history_run"): READ,
}

# (creator, schema): who reads what the creator makes there, now and later. The publisher is not here:
# it grants its views one by one, since nobody may read the tables behind them (include/warehouse/publish.py).
DEFAULT_READERS: dict[tuple[str, str], tuple[str, ...]] = {
    ("transformer", "marts"): ("scorer",),
    ("transformer", "candidate"): ("publisher",),
    ("transformer", "identity"): ("housekeeper", "auditor"),
}


def role_name(role: str) -> str:
    """Return the database role of a part: `stratum_loader`, ..."""
    return f"stratum_{role}"


def _identifier(role: str) -> sql.Identifier:
    return sql.Identifier(role_name(role))


def create_roles(owner: psycopg.Connection, passwords: dict[str, str]) -> None:
    """Create each role that is missing and set each one's password.

    `passwords` maps every name of ROLES. Raises psycopg.errors.InsufficientPrivilege where the owner
    may not create roles.
    """
    for role in ROLES:
        known = owner.execute("select from pg_roles where rolname = %s", [role_name(role)]).fetchone()
        verb = sql.SQL("create role" if known is None else "alter role")
        owner.execute(
            sql.SQL("{} {} nosuperuser nocreatedb nocreaterole login password {}").format(
                verb, _identifier(role), sql.Literal(passwords[role])
            )
        )


def grant_all(owner: psycopg.Connection) -> None:
    """Make the owner's grants equal the matrix: all of them are taken back, then given as written."""
    database = sql.Identifier(owner.info.dbname)
    for role in ROLES:
        owner.execute(sql.SQL("grant connect on database {} to {}").format(database, _identifier(role)))
    # PostgreSQL lets everybody make temporary tables unless somebody took that away.
    for role in ("scorer", "syncer"):
        owner.execute(sql.SQL("grant temporary on database {} to {}").format(database, _identifier(role)))
    schemas = sorted({schema for _, schema in SCHEMA_GRANTS})
    for schema in schemas:
        for role in ROLES:
            owner.execute(
                sql.SQL("revoke all on schema {} from {}").format(sql.Identifier(schema), _identifier(role))
            )
    tables = owner.execute(
        "select schemaname, tablename from pg_tables where schemaname = any(%s) and tableowner = current_user",
        [schemas],
    ).fetchall()
    for schema, table in tables:
        for role in ROLES:
            owner.execute(
                sql.SQL("revoke all on {} from {}").format(sql.Identifier(schema, table), _identifier(role))
            )
    for (role, schema), privileges in SCHEMA_GRANTS.items():
        _grant_usage(owner, role, schema)
        kind = sql.SQL("schema" if privileges == OWN else "all tables in schema")
        _grant(owner, privileges, sql.SQL("{} {}").format(kind, sql.Identifier(schema)), role)
    for (role, table), privileges in TABLE_GRANTS.items():
        schema, _, name = table.partition(".")
        _grant_usage(owner, role, schema)
        _grant(owner, privileges, sql.Identifier(schema, name), role)
    for (_, schema), readers in DEFAULT_READERS.items():
        for reader in readers:
            _grant_usage(owner, reader, schema)


def grant_defaults(connections: dict[str, psycopg.Connection]) -> None:
    """Let each creator grant its readers all it will make; `connections` maps a creator to its own connection."""
    for (creator, schema), readers in DEFAULT_READERS.items():
        for reader in readers:
            connections[creator].execute(
                sql.SQL("alter default privileges in schema {} grant select on tables to {}").format(
                    sql.Identifier(schema), _identifier(reader)
                )
            )


def _grant_usage(owner: psycopg.Connection, role: str, schema: str) -> None:
    owner.execute(sql.SQL("grant usage on schema {} to {}").format(sql.Identifier(schema), _identifier(role)))


def _grant(owner: psycopg.Connection, privileges: tuple[str, ...], target: sql.Composable, role: str) -> None:
    owner.execute(
        sql.SQL("grant {} on {} to {}").format(
            sql.SQL(", ").join(map(sql.SQL, privileges)), target, _identifier(role)
        )
    )
