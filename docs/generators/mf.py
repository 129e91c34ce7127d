"""Runs MetricFlow's command on the project and the warehouse: `make metrics MF="query --metrics retention_90d …"`.

MetricFlow reads `target/semantic_manifest.json` in the folder of the project, where builds write nothing. It is given a
folder of its own in STRATUM_HOME, in which the project's files are links.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dbt.contracts.graph.semantic_manifest import SemanticManifest

from include.commands.common import say
from include.dbt import DBT_PROJECT, parsed_project, profile_environment
from include.local.stack import Stack
from include.settings import get_settings
from include.warehouse.connect import role_url


@contextmanager
def project_for_metricflow() -> Iterator[Path]:
    """Give a folder of the project with its metrics as parsed; inside, its profile reaches the warehouse."""
    folder = get_settings().home / "dbt" / "metricflow"
    (folder / "target").mkdir(parents=True, exist_ok=True)
    for entry in DBT_PROJECT.iterdir():
        link = folder / entry.name
        if not link.is_symlink():
            link.symlink_to(entry)
    with profile_environment(role_url("transformer")):
        SemanticManifest(parsed_project()).write_json_to_file(
            str(folder / "target" / "semantic_manifest.json")
        )
        yield folder


def run_mf(arguments: list[str], capture: bool = False) -> subprocess.CompletedProcess[str]:
    """Run `mf` with these arguments; its output goes to the terminal, or is returned."""
    with project_for_metricflow() as folder:
        places = {"DBT_PROJECT_DIR": str(folder), "DBT_PROFILES_DIR": str(folder)}
        return subprocess.run(
            [str(Path(sys.executable).with_name("mf")), *arguments],
            cwd=folder,
            env={**os.environ, **places},
            text=True,
            capture_output=capture,
            check=False,
        )


def main(arguments: list[str]) -> int:
    """Run `mf` on the warehouse of STRATUM_HOME, starting it for as long as that lasts; return its exit code."""
    stack = Stack(get_settings(), say)
    try:
        stack.start_warehouse()
        return run_mf(arguments).returncode
    finally:
        stack.down_started()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
