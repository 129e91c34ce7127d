"""The task that tells one target, and waits for a person where a brake stopped it."""

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk.exceptions import AirflowSkipException, TaskAwaitingInput

from include.dag_support import active_sources, fail_clearly
from include.dates import as_of_of
from include.errors import StratumError


class TellTarget(ApprovalOperator):
    """Sync one target of sync.yml; a sync that is held waits in Airflow's list of required actions.

    The answer may come from there or from `stratum sync approve`: either way it stands in sync.holds. Approved, the
    send goes on; rejected or unanswered, the task fails, so that no hold reads as a success. While it waits it takes
    no worker, and no triggerer: the scheduler wakes it.
    """

    template_fields = ()

    def __init__(self, *, target: str, **kwargs: Any) -> None:
        # Both are those of the hold, once there is one; the timeout keeps the work's own apart from the wait's.
        super().__init__(subject="held", response_timeout=timedelta(days=1), **kwargs)
        self.target = target

    @fail_clearly
    def execute(self, context: Any) -> None:
        """Tell the target; park where a brake held the sync."""
        from include.sync.run import tell

        hold = tell(active_sources(), as_of_of(context), self.target)
        if hold is None:
            return
        self.subject = hold.subject
        self.body = "\n".join(f"- {reason['says']}" for reason in hold.reasons)
        self.response_timeout = hold.expires_at - datetime.now(UTC)
        try:
            super().execute(context)
        except TaskAwaitingInput as wait:
            wait.kwargs = {"hold_id": hold.hold_id}
            raise

    @fail_clearly
    def execute_complete(self, context: Any, event: dict[str, Any], hold_id: int = 0) -> None:
        """Book the answer to a hold and send what was held; fail where it was not approved."""
        from include.sync.holds import APPROVED, SUPERSEDED, decide, read_hold
        from include.sync.run import tell

        hold = read_hold(hold_id)
        if hold.status == SUPERSEDED:
            raise AirflowSkipException(f"{hold}; that one's own sync tells the CRM")
        if "error" not in event:
            approved = event["chosen_options"] == [self.APPROVE]
            hold = decide(hold_id, approved, f"{event['responded_by_user']['name']} (Airflow)", None)
        if hold.status != APPROVED:
            raise StratumError(f"Nothing was sent: {hold}.")
        if again := tell(active_sources(), as_of_of(context), self.target):
            raise StratumError(f"Nothing was sent, for it is held again: {again}.")
