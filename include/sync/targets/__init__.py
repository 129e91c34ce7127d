"""The systems that can be told, each an implementation of include/sync/target.py."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from include.connections import get_connection, get_login
from include.sync.mapping import SyncMapping
from include.sync.target import Target


@contextmanager
def open_target(
    mapping: SyncMapping,
    role: str | None,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Target]:
    """Open the target of a mapping for a warehouse role; its limits are shared by all tasks of all machines.

    Without a role the limits are not counted: for a handful of calls, where no warehouse is at hand. Raises
    StratumError where the connection is not known, or the login is refused.
    """
    # The clients are heavy: only the one that is used is imported.
    match mapping.system:
        case "hubspot":
            from include.sync.hubspot_api import hubspot
            from include.sync.targets.hubspot import HubSpotTarget

            with hubspot(get_connection(mapping.connection), role, clock, sleep) as api:
                yield HubSpotTarget(api, mapping.external_key)
        case "salesforce":
            from include.sources.salesforce_api import salesforce
            from include.sync.targets.salesforce import SalesforceTarget

            with salesforce(get_login(mapping.connection), role, clock, sleep) as org:
                yield SalesforceTarget(org, mapping.object, sleep, mapping.external_key)
        case "bottlecrm":
            from include.sources.bottlecrm_api import bottlecrm
            from include.sync.targets.bottlecrm import BottleCrmTarget

            with bottlecrm(get_connection(mapping.connection), role, clock, sleep) as bottle:
                yield BottleCrmTarget(bottle)
        case "webhook":
            from include.sync.targets.webhook import webhook

            with webhook(get_connection(mapping.connection), mapping.object, role, clock, sleep) as target:
                yield target
