"""drt-core, a reverse ETL of its own, on the same rows: in an environment apart, since its pins are not ours."""

import json
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.meter import Meter
from benchmarks.place import Place

LOCK = Path(__file__).parents[1] / "requirements" / "bench.lock"
PEER = Path(__file__).with_name("peer.py")


def install(folder: Path) -> Path:
    """Make an environment with the locked packages, by hash, unless it stands; return its Python."""
    python = folder / "bin" / "python"
    done = folder / "installed.lock"
    if not done.exists() or done.read_text() != LOCK.read_text():
        venv.create(folder, clear=True, with_pip=True)
        command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*command, "--require-hashes", "-r", LOCK], check=True, stdout=sys.stderr)
        done.write_text(LOCK.read_text())
    return python


def run(
    place: Place, what: str, query: str, columns: list[str], **order: Any
) -> tuple[Meter, dict[str, Any]]:
    """Let drt-core do an order of benchmarks/peer.py; return what it took, imports apart, and its answer."""
    server = psycopg.conninfo.conninfo_to_dict(place.owner_url)
    names = ("host", "port", "dbname", "user", "password")
    told = {
        "what": what,
        "query": query,
        "columns": columns,
        "server": {name: server[name] for name in names},
    }
    # Its own settings and telemetry lie in the home folder, which is this one's: empty.
    folder = place.home / "drt-home"
    folder.mkdir(exist_ok=True)
    peer = subprocess.Popen(
        [install(place.home / "drt"), "-P", PEER],
        cwd=folder,
        env={"HOME": str(folder), "DO_NOT_TRACK": "1"},
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    if peer.stdin is None or peer.stdout is None:
        raise RuntimeError("drt-core has no pipe")
    with peer:
        print(json.dumps(told | order), file=peer.stdin, flush=True)
        is_ready = peer.stdout.readline() == "ready\n"
        with place.meter() as meter:
            print(file=peer.stdin, flush=True)
            answer = peer.stdout.readline() if is_ready else ""
    if not answer:
        raise RuntimeError(f"drt-core ended with {peer.returncode}: see its errors above")
    return meter, json.loads(answer)
