"""`stratum status` and `stratum unlock`: what is up and waits, and the way out of a lock nobody holds any more."""

import json

from include.commands.common import AsJson, say, say_aside, warehouse
from include.errors import StratumError
from include.settings import get_settings


def status(as_json: AsJson = False) -> None:
    """Say what is up, what is published and what waits. Fails only where the warehouse cannot be read."""
    from include.local import condition
    from include.local.stack import Stack

    stack = Stack(get_settings(), say_aside)
    facts = condition.processes(stack)
    with warehouse(say_aside):
        facts |= condition.books()
        api_is_up = facts["airflow"]["api-server"]["status"] == "healthy"
        facts["runs"] = condition.last_runs(stack.api()) if api_is_up else []
    if as_json:
        say(json.dumps(facts, default=str))
        return
    say("\n".join(condition.lines(facts)))


def unlock() -> None:
    """Give the build lock back where its run is no longer at work: one that died, or was marked failed by hand."""
    from include.local import condition
    from include.local.airflow_care import building
    from include.local.stack import Stack
    from include.warehouse.lock import fail_run, holder_now

    stack = Stack(get_settings(), say_aside)
    api_is_up = condition.airflow(stack)["api-server"]["status"] == "healthy"
    with warehouse(say_aside):
        holder = holder_now()
        if holder is None:
            say("The build lock is free.")
            return
        if api_is_up and (at_work := building(stack.api(), holder.as_of)):
            raise StratumError(
                f"The build lock is held by {holder}, and {at_work} of {holder.as_of} is at work in Airflow. "
                "End it there first (mark it failed), or let it finish."
            )
        fail_run(holder.as_of, "unlocked by hand")
    say(f"Gave the build lock of {holder} back. Run its date again: stratum run --as-of {holder.as_of}")
