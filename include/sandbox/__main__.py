"""Start the sandbox: `python -m include.sandbox --port PORT --state FILE`, on loopback if not told another address.

The token clients must send is read from STRATUM_SANDBOX_TOKEN. An empty state is seeded with the CRM of the
simulated company; a state an older version left gets the object types it lacks. The process stands in for HubSpot and, under
/services/, for an empty Salesforce org, whose records lie beside FILE.
"""

import argparse
import os
import signal
import socket
import sys
from pathlib import Path

import uvicorn

from include.sandbox.app import BURST_CALLS, Sandbox
from include.sandbox.salesforce.app import SalesforceSandbox
from include.sandbox.salesforce.store import Store as SalesforceStore
from include.sandbox.store import Store
from include.simulate.market.hubspot import accounts, records

GRACE_S = 1  # what a request in progress has before the server leaves on SIGTERM


def main() -> int:
    """Serve until SIGTERM or SIGINT; 1 where the token is missing or the port is taken."""
    parser = argparse.ArgumentParser(prog="python -m include.sandbox", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument(
        "--burst-calls", type=int, default=BURST_CALLS, help="HubSpot's limit for ten seconds"
    )
    arguments = parser.parse_args()
    token = os.environ.get("STRATUM_SANDBOX_TOKEN")
    if not token:
        print("Set STRATUM_SANDBOX_TOKEN to the token clients must send.", file=sys.stderr)
        return 1
    # uvicorn stops cleanly on these, and then raises them again.
    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, lambda *_: sys.exit(0))
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((arguments.host, arguments.port))
    except OSError as error:
        print(
            f"Port {arguments.port} of {arguments.host} cannot be taken: {error.strerror}.", file=sys.stderr
        )
        return 1
    store = Store(arguments.state)
    if store.is_empty():
        store.seed(accounts())
    if missing := store.missing_kinds():
        store.seed_records(each for each in records() if each.kind in missing)
    org = SalesforceStore(arguments.state.with_suffix(".salesforce.db"))
    app = Sandbox(store, token, arguments.burst_calls).app()
    app.routes.extend(SalesforceSandbox(org, token).app().routes)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        lifespan="off",
        http="h11",  # the other one writes all headers small; Salesforce's are in Title-Case
        timeout_graceful_shutdown=GRACE_S,
    )
    try:
        uvicorn.Server(config).run(sockets=[listener])
    finally:
        store.close()
        org.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
