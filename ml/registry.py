"""Fitted models in ml.models: written once, read only where their bytes are the ones that were written.

An artefact is a Pipeline in skops form. Loading one builds the types of TRUSTED and no others, so bytes from
elsewhere cannot run code.
"""

import hashlib
import io
import re
import zipfile
from dataclasses import dataclass
from datetime import date
from typing import Any

import psycopg
import skops.io
from psycopg.types.json import Jsonb
from sklearn.pipeline import Pipeline

from include.errors import StratumError

TRUSTED = (
    "ml.estimators.CalibratedBoosting",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
)
"""Types an artefact may hold beside those that skops itself knows to be harmless."""

_WRITTEN_AT = (1980, 1, 1, 0, 0, 0)
_COLUMNS = (
    "model_id, model, trained_as_of, horizon_days, window_from, window_to, training_rows, training_positives, "
    "parameters, features, data_fingerprint, artefact_sha256"
)


@dataclass(frozen=True)
class Model:
    """One fitted model as ml.models keeps it, without its bytes.

    `features` is the contract: name and kind of each, whether the model uses it, and its typical value (the
    median) among accounts it happened to and the others. `parameters` holds every knob and the policy.
    """

    model_id: str
    model: str
    trained_as_of: date
    horizon_days: int
    window_from: date
    window_to: date
    training_rows: int
    training_positives: int
    parameters: dict[str, Any]
    features: list[dict[str, Any]]
    data_fingerprint: str
    artefact_sha256: str

    @property
    def active_days(self) -> int:
        """Days of the recent buyers' window in the policy the model was trained under."""
        return int(self.parameters["active_days"])

    @property
    def min_rise(self) -> float:
        """The rise in spend that counted in the policy the model was trained under."""
        return float(self.parameters.get("min_rise", 0.0))

    @property
    def definition(self) -> str:
        """What the model foretells, by the name of its definition in ml/targets.py."""
        return str(self.parameters.get("definition", "no order"))  # models before there were several: churn


def to_bytes(pipeline: Pipeline) -> bytes:
    """Return a fitted pipeline in skops form; equal models give equal bytes.

    skops names its parts by memory addresses and stamps them with the clock: the parts are named by their
    place instead, and the clock is left out.
    """
    parts = zipfile.ZipFile(io.BytesIO(skops.io.dumps(pipeline)))
    schema = parts.read("schema.json").decode()
    places: dict[str, str] = {}
    for address in re.findall(r'"(?:__id__": |file": ")(\d+)', schema):
        places.setdefault(address, str(len(places) + 1))
    schema = re.sub(
        r'("__id__": |"file": ")(\d+)', lambda found: found.group(1) + places[found.group(2)], schema
    )
    files = {"schema.json": schema.encode()}
    for name in parts.namelist():
        if name != "schema.json":
            address, _, suffix = name.partition(".")
            files[f"{places[address]}.{suffix}"] = parts.read(name)
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for name in sorted(files):
            archive.writestr(
                zipfile.ZipInfo(name, _WRITTEN_AT), files[name], compress_type=zipfile.ZIP_DEFLATED
            )
    return written.getvalue()


def from_bytes(artefact: bytes) -> Pipeline:
    """Return the pipeline. Raises StratumError where the bytes hold a type that is not trusted."""
    unknown = sorted(set(skops.io.get_untrusted_types(data=artefact)) - set(TRUSTED))
    if unknown:
        raise StratumError(
            f"A model's artefact holds types that are not trusted: {', '.join(unknown)}. It was not loaded; "
            "delete its row of ml.models and train anew."
        )
    return skops.io.loads(artefact, trusted=list(TRUSTED))


def save(
    connection: psycopg.Connection, found: Model, artefact: bytes, estimator: str, code_version: str
) -> None:
    """Add a fitted model; the same model once more changes nothing."""
    connection.execute(
        "insert into ml.models (model_id, model, trained_as_of, horizon_days, window_from, window_to, training_rows, "
        "training_positives, parameters, features, data_fingerprint, artefact_sha256, estimator, code_version, artefact) "
        "values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) on conflict (model_id) do nothing",
        [
            found.model_id,
            found.model,
            found.trained_as_of,
            found.horizon_days,
            found.window_from,
            found.window_to,
            found.training_rows,
            found.training_positives,
            Jsonb(found.parameters),
            Jsonb(found.features),
            found.data_fingerprint,
            found.artefact_sha256,
            estimator,
            code_version,
            artefact,
        ],
    )


def newest(connection: psycopg.Connection, model: str, as_of: date) -> Model | None:
    """Return the newest model trained as of a date or before; None where there is none."""
    row = connection.execute(
        f"select {_COLUMNS} from ml.models where model = %s and trained_as_of <= %s "  # noqa: S608 - a constant
        "order by trained_as_of desc, trained_at desc, model_id limit 1",
        [model, as_of],
    ).fetchone()
    return Model(*row) if row else None


def trained_on(connection: psycopg.Connection, model: str, day: date) -> list[Model]:
    """Return the models trained as of a day, the last one trained first."""
    rows = connection.execute(
        f"select {_COLUMNS} from ml.models where model = %s and trained_as_of = %s "  # noqa: S608 - a constant
        "order by trained_at desc, model_id",
        [model, day],
    ).fetchall()
    return [Model(*row) for row in rows]


def by_id(connection: psycopg.Connection, model_id: str) -> Model:
    """Return a model by its id. Raises StratumError where there is none."""
    row = connection.execute(
        f"select {_COLUMNS} from ml.models where model_id = %s",  # noqa: S608 - a constant
        [model_id],
    ).fetchone()
    if row is None:
        raise StratumError(f"There is no model '{model_id}': `stratum models list` shows those there are.")
    return Model(*row)


def all_models(connection: psycopg.Connection) -> list[Model]:
    """Return every model, the newest first."""
    rows = connection.execute(
        f"select {_COLUMNS} from ml.models order by trained_as_of desc, trained_at desc, model_id"  # noqa: S608
    ).fetchall()
    return [Model(*row) for row in rows]


def refuse(connection: psycopg.Connection, model: str, as_of: date, reason: str) -> None:
    """Write down that the training as of a day found nothing to keep."""
    connection.execute(
        "insert into ml.refusals (model, trained_as_of, reason) values (%s, %s, %s) on conflict do nothing",
        [model, as_of, reason],
    )


def refusal(connection: psycopg.Connection, model: str, as_of: date) -> str | None:
    """Return why the training as of a day kept nothing; None where it was not refused."""
    row = connection.execute(
        "select reason from ml.refusals where model = %s and trained_as_of = %s", [model, as_of]
    ).fetchone()
    return row[0] if row is not None else None


def validated_auc(connection: psycopg.Connection, model_id: str) -> float | None:
    """Return the mean AUC of a model's validation dates over all its accounts; None where none was measured."""
    row = connection.execute(
        "select round(avg(value)::numeric, 4) from ml.metrics where model_id = %s and kind = 'validation' "
        "and population = 'all' and estimator = 'model' and metric = 'auc'",
        [model_id],
    ).fetchone()
    return row[0] if row is not None else None


def load(connection: psycopg.Connection, found: Model) -> Pipeline:
    """Return a model's fitted pipeline. Raises StratumError where its bytes are not those that were written."""
    row = connection.execute(
        "select artefact from ml.models where model_id = %s", [found.model_id]
    ).fetchone()
    artefact = bytes(row[0]) if row else b""
    if hashlib.sha256(artefact).hexdigest() != found.artefact_sha256:
        raise StratumError(
            f"The artefact of model {found.model_id} does not match its checksum: it was changed after training. "
            "It was not loaded; delete its row of ml.models and train anew."
        )
    return from_bytes(artefact)
