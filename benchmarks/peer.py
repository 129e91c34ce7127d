"""What drt-core does of an order: run by the Python that has it, which has nothing of Stratum; see benchmarks/drt_core.py.

Reads one JSON order from the first line of standard input, imports and says "ready", does it at the second line, and
answers with one line of JSON. An order has `what` (snapshot, plan or send), `server` (host, port, dbname, user, password),
`query`, `columns` (of which the first is the record's id); and to send `url`, `token`, `batch`, `requests_per_s`.
"""

import json
import sys
from pathlib import Path
from typing import Any

from drt import __version__
from drt.config.credentials import PostgresProfile
from drt.config.models import SyncConfig
from drt.destinations.rest_api import RestApiDestination
from drt.engine.sync import run_sync
from drt.sources.postgres import PostgresSource

SYNC = "bench"


def compare(order: dict[str, Any], profile: PostgresProfile) -> dict[str, Any]:
    """Compare the query's rows with the snapshot of the last time; `snapshot` keeps them as the new one."""
    source, key = PostgresSource(), order["columns"][0]
    found = source.extract_snapshot_diff(
        order["query"], profile, sync_name=SYNC, key_columns=[key], hash_columns="all"
    )
    if order["what"] == "snapshot":
        source.commit_snapshot_diff(profile, SYNC)
        return {}
    counts = {name: sum(1 for _ in getattr(found, name)) for name in ("added", "changed", "removed_keys")}
    return {"rows": counts["added"] + counts["changed"], "removed": counts["removed_keys"]}


def send(order: dict[str, Any], profile: PostgresProfile) -> dict[str, Any]:
    """Send the query's rows through drt's REST destination, as HubSpot's batch updates."""
    key, *names = order["columns"]
    values = ", ".join(f'"{name}": {{{{ row.{name} | tojson }}}}' for name in names)
    row = f'{{"id": {{{{ row.{key} | tojson }}}}, "properties": {{{values}}}}}'
    config = SyncConfig.model_validate(
        {
            "name": SYNC,
            "model": order["query"],
            "destination": {
                "type": "rest_api",
                "url": order["url"],
                "auth": {"type": "bearer", "token": order["token"]},
                "headers": {"Content-Type": "application/json"},
                "body_mode": "batch",
                "batch_template": f'{{"inputs": [{{% for row in rows %}}{row}'
                "{% if not loop.last %}, {% endif %}{% endfor %}]}",
                "max_records_per_request": order["batch"],
            },
            "sync": {
                "batch_size": order["batch"] * 100,
                "rate_limit": {"requests_per_second": order["requests_per_s"]},
            },
        }
    )
    done = run_sync(config, PostgresSource(), RestApiDestination(), profile, Path.cwd())
    return {"rows": done.success, "failed": done.failed, "errors": done.errors[:1]}


def main() -> None:
    """Do one order."""
    order = json.loads(sys.stdin.readline())
    profile = PostgresProfile("postgres", **order["server"])
    print("ready", flush=True)
    sys.stdin.readline()
    done = send(order, profile) if order["what"] == "send" else compare(order, profile)
    print(json.dumps(done | {"version": __version__}), flush=True)


if __name__ == "__main__":
    main()
