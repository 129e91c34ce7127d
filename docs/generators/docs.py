"""Writes dbt's documentation of the project as one page that opens without a server: `make docs`.

It is made from the project's files alone: descriptions, tests, lineage, owners, exposures and metrics. No warehouse is
asked, so columns have the types that contracts promise, and no counts.
"""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dbt.cli.main import dbtRunner
from dbt.parser.manifest import write_manifest

from include.dbt import DBT_PROJECT, profile_environment
from include.errors import StratumError
from include.settings import get_settings

NO_WAREHOUSE = "postgresql://transformer@127.0.0.1/warehouse"
"""A profile names a warehouse, also where none is asked."""


def parse() -> Any:
    """Return the project as parsed, without a warehouse and apart from what builds keep of it.

    Raises StratumError where it cannot be read.
    """
    with profile_environment(NO_WAREHOUSE), TemporaryDirectory() as folder:
        outcome = dbtRunner().invoke(["parse", *_options(folder), "--no-write-json", "--no-partial-parse"])
    if not outcome.success:
        raise StratumError(f"The dbt project cannot be read: {outcome.exception}")
    return outcome.result


def write_docs(manifest: Any) -> Path:
    """Write STRATUM_HOME/dbt-docs/index.html and return its path. Raises StratumError where dbt cannot."""
    page = get_settings().home / "dbt-docs" / "index.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    with profile_environment(NO_WAREHOUSE), TemporaryDirectory() as folder:
        write_manifest(manifest, folder)
        outcome = dbtRunner(manifest=manifest).invoke(
            ["docs", "generate", "--static", "--empty-catalog", "--no-compile", *_options(folder)]
        )
        if not outcome.success:
            raise StratumError(f"The documentation cannot be made: {outcome.exception}")
        shutil.copyfile(Path(folder) / "static_index.html", page)
    return page


def _options(folder: str) -> list[str]:
    return [
        *("--project-dir", str(DBT_PROJECT), "--profiles-dir", str(DBT_PROJECT)),
        *("--target-path", folder, "--log-path", folder, "--quiet"),
    ]


if __name__ == "__main__":
    print(write_docs(parse()))
