"""The clusters of a run: fit what its quarter lacks, assign every account that has ordered, write it down."""

import logging
from datetime import date, timedelta

import pandas as pd
import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from include.errors import StratumError
from include.warehouse.connect import connect
from include.warehouse.lock import code_version
from ml import registry
from ml.cluster_names import MEASURES
from ml.clusters import Cluster, Fit, Scale, assign, fit_clusters, medians, quarter_in_force, too_few
from ml.copies import read_rows, write_rows
from ml.frames import was_built
from ml.params import ClusterParams, section_of

log = logging.getLogger(__name__)

CLUSTERS = "clusters"
"""What clusters are called in ml/params.yaml and ml.refusals."""


def fit_clusters_if_due(as_of: date) -> list[str]:
    """Fit the clusters of every quarter up to that of a date which has none yet, the oldest first; return the new ids.

    From the oldest one kept on, so that ids and names do not depend on the order in which dates are run. A quarter
    with too few accounts is passed over; one whose accounts form no clusters too, which is written down: it is not
    searched again.
    """
    params = section_of(CLUSTERS, ClusterParams)
    made = []
    with connect("scorer") as connection:
        for quarter in _quarters_without(connection, _quarter_of(connection, as_of)):
            before = _fit_between(connection, date.min, quarter - timedelta(days=1))
            frame = features_of(connection, quarter - timedelta(days=1))
            fitted = too_few(frame, params) or fit_clusters(
                frame, params, before[1] if before else None, _next_id(connection)
            )
            if isinstance(fitted, str):
                log.info("No clusters are made for the quarter from %s: %s.", quarter, fitted)
                if too_few(frame, params) is None:
                    registry.refuse(connection, CLUSTERS, quarter - timedelta(days=1), fitted)
                continue
            made.append(_save(connection, quarter, fitted, params))
            log.info(
                "Clusters of the quarter from %s: %d, of %d accounts.",
                quarter,
                len(fitted.clusters),
                fitted.accounts,
            )
    return made


def assign_clusters(as_of: date, run_id: str) -> str | None:
    """Write the cluster of every account that has ordered by a date, for a run; return the fit, None where there is none.

    The clusters are those of the date's quarter; where that has none, the run's row of ml.cluster_runs says why. Run
    again, a run's rows are replaced. Where nobody has ordered yet there is none. Raises StratumError where the date's
    features are not there.
    """
    params = section_of(CLUSTERS, ClusterParams)
    with connect("scorer") as connection:
        quarter = _quarter_of(connection, as_of)
        found = _fit_between(connection, quarter, quarter)
        frame = features_of(connection, as_of)
        if frame.empty and (found is not None or not was_built(connection, as_of)):
            raise StratumError(
                f"marts.account_features holds nothing as of {as_of}: build the date first "
                f"(`stratum run --as-of {as_of}`)."
            )
        for table in ("cluster_runs", "account_clusters", "cluster_medians"):
            connection.execute(
                sql.SQL("delete from {} where run_id = %s").format(sql.Identifier("ml", table)), [run_id]
            )
        if found is None:
            why = f"the clusters of the quarter from {quarter} are not made: " + _why_none(
                connection, quarter, params
            )
            _write_run(connection, run_id, as_of, None, why, 0)
            log.info("No clusters as of %s: %s.", as_of, why)
            return None
        fit_id, fit = found
        assigned = assign(frame, fit)
        write_rows(
            connection,
            "ml.account_clusters",
            ("run_id", "as_of_date", *assigned.columns),
            ((run_id, as_of, *row) for row in assigned.itertuples(index=False, name=None)),
        )
        told = medians(frame, assigned, fit).astype(object)
        told = told.where(told.notna(), None)
        write_rows(
            connection,
            "ml.cluster_medians",
            ("run_id", "as_of_date", *told.columns),
            ((run_id, as_of, *row) for row in told.itertuples(index=False, name=None)),
        )
        _write_run(connection, run_id, as_of, fit_id, None, len(assigned))
    return fit_id


def _quarter_of(connection: psycopg.Connection, as_of: date) -> date:
    row = connection.execute(
        "select value::int from marts.thresholds where name = 'calibration_grace_days' and effective_from <= %s "
        "order by effective_from desc limit 1",
        [as_of],
    ).fetchone()
    if row is None:
        raise StratumError(
            f"No calibration_grace_days is in force on {as_of}: it is a row of "
            "dbt_project/seeds/policy/thresholds.csv, landed by the build (`stratum run --as-of DATE`)."
        )
    return quarter_in_force(as_of, row[0])


def _quarters_without(connection: psycopg.Connection, last: date) -> list[date]:
    """Return the quarters up to `last` that are still to be fitted, and whose features are kept, the oldest first."""
    rows = connection.execute(
        "select distinct as_of_date + 1 from marts.account_features where as_of_date < %s "
        "and extract(day from as_of_date + 1) = 1 and extract(month from as_of_date + 1) in (1, 4, 7, 10) "
        "and as_of_date + 1 not in (select quarter_start from ml.cluster_fits) "
        "and as_of_date not in (select trained_as_of from ml.refusals where model = %s) order by 1",
        [last, CLUSTERS],
    ).fetchall()
    return [quarter for (quarter,) in rows]


def _next_id(connection: psycopg.Connection) -> int:
    row = connection.execute("select coalesce(max(cluster_id), 0) + 1 from ml.clusters").fetchone()
    return row[0] if row else 1


def _why_none(connection: psycopg.Connection, quarter: date, params: ClusterParams) -> str:
    """Return why a quarter has no fit, as the fit said it."""
    day = quarter - timedelta(days=1)
    reason = registry.refusal(connection, CLUSTERS, day) or too_few(features_of(connection, day), params)
    return f"as of {day}, {reason}" if reason is not None else "see the runs of train_models"


def fit_of(connection: psycopg.Connection, fit_id: str) -> tuple[date, Fit, date]:
    """Return the first day of a fit's quarter, the fit, and the day it was fitted on. Raises StratumError without it."""
    row = connection.execute(
        "select quarter_start, fitted_on from ml.cluster_fits where fit_id = %s", [fit_id]
    ).fetchone()
    found = _fit_between(connection, row[0], row[0]) if row else None
    if row is None or found is None:
        raise StratumError(f"There are no clusters '{fit_id}': ml.cluster_fits names those there are.")
    return row[0], found[1], row[1]


def knobs_of(connection: psycopg.Connection, fit_id: str) -> dict[str, float]:
    """Return the knobs that a fit was made by, as they were then. Raises StratumError where there is no such fit."""
    row = connection.execute(
        "select parameters -> 'knobs' from ml.cluster_fits where fit_id = %s", [fit_id]
    ).fetchone()
    if row is None:
        raise StratumError(f"There are no clusters '{fit_id}': ml.cluster_fits names those there are.")
    return row[0]


def features_of(connection: psycopg.Connection, day: date) -> pd.DataFrame:
    """Return account_id and the columns of MEASURES of who had ordered by a day, in the order of account_id."""
    columns = ("account_id", *MEASURES)
    query = sql.SQL("select {} from marts.account_features where as_of_date = {}").format(
        sql.SQL(", ").join(map(sql.Identifier, columns)), sql.Literal(day)
    )
    frame = read_rows(connection, query, {"account_id": "str"})
    # Not in SQL, where the order of texts depends on the server's collation.
    return frame.sort_values("account_id", ignore_index=True)


def _fit_between(connection: psycopg.Connection, first: date, last: date) -> tuple[str, Fit] | None:
    """Return the newest fit of the quarters that begin between two days, both included, with its id."""
    row = connection.execute(
        "select fit_id, accounts, silhouette, stability, parameters, data_fingerprint from ml.cluster_fits "
        "where quarter_start between %s and %s order by quarter_start desc limit 1",
        [first, last],
    ).fetchone()
    if row is None:
        return None
    fit_id, accounts, silhouette, stability, parameters, fingerprint = row
    scales = tuple(Scale(**one) for one in parameters["scales"])
    clusters = connection.execute(
        "select cluster_id, name, description, accounts, share, centroid, moved from ml.clusters "
        "where fit_id = %s order by cluster_id",
        [fit_id],
    ).fetchall()
    return fit_id, Fit(
        scales=scales,
        clip=parameters["clip"],
        clusters=tuple(
            Cluster(
                cluster_id, name, description, size, share, tuple(centroid[one.name] for one in scales), moved
            )
            for cluster_id, name, description, size, share, centroid, moved in clusters
        ),
        accounts=accounts,
        silhouette=silhouette,
        stability=stability,
        tried=tuple(parameters["tried"]),
        fingerprint=fingerprint,
    )


def _save(connection: psycopg.Connection, quarter: date, fit: Fit, params: ClusterParams) -> str:
    fit_id = f"clusters_{quarter:%Y%m%d}_{fit.fingerprint[:8]}"
    connection.execute(
        "insert into ml.cluster_fits (fit_id, quarter_start, fitted_on, accounts, silhouette, stability, parameters, "
        "data_fingerprint, code_version) values (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
        [
            fit_id,
            quarter,
            quarter - timedelta(days=1),
            fit.accounts,
            fit.silhouette,
            fit.stability,
            Jsonb(
                {
                    "scales": [vars(scale) for scale in fit.scales],
                    "clip": fit.clip,
                    "tried": list(fit.tried),
                    "knobs": params.model_dump(mode="json"),
                }
            ),
            fit.fingerprint,
            code_version(),
        ],
    )
    with connection.cursor() as cursor:
        cursor.executemany(
            "insert into ml.clusters (fit_id, cluster_id, name, description, accounts, share, centroid, moved) "
            "values (%s, %s, %s, %s, %s, %s, %s, %s)",
            [
                (
                    fit_id,
                    one.cluster_id,
                    one.name,
                    one.description,
                    one.accounts,
                    one.share,
                    Jsonb({scale.name: value for scale, value in zip(fit.scales, one.centroid, strict=True)}),
                    one.moved,
                )
                for one in fit.clusters
            ],
        )
    return fit_id


def _write_run(
    connection: psycopg.Connection,
    run_id: str,
    as_of: date,
    fit_id: str | None,
    reason: str | None,
    accounts: int,
) -> None:
    connection.execute(
        "insert into ml.cluster_runs (run_id, as_of_date, fit_id, reason, accounts) values (%s, %s, %s, %s, %s)",
        [run_id, as_of, fit_id, reason, accounts],
    )
