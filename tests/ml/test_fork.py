"""A task forked from a scheduler that holds the models' libraries can fit, and does not hang."""

import subprocess
import sys

from include.settings import PROJECT_DIR

FORKED = """
import os
from datetime import date
import include.local.airflow_config.airflow_local_settings as settings
for name in settings.PRELOADED:
    if name.startswith("ml."):
        __import__(name)
assert "shap" in __import__("sys").modules
if os.fork() == 0:
    import pandas as pd
    from ml.targets import CHURN, Policy
    from ml.params import params_of
    from ml.score import score_frame
    from ml.train import fit_model
    from tests.ml.conftest import AS_OF, TRAINED_ON
    from tests.ml.world import labelled, order_days
    frame = labelled(order_days(), TRAINED_ON)
    fitted = fit_model(CHURN, AS_OF, frame, Policy(90, 90), params_of("churn"))
    newest = frame[frame["as_of_date"] == frame["as_of_date"].max()]
    print(len(score_frame(fitted.pipeline, fitted.model, newest.drop(columns="happened"), CHURN)), flush=True)
    os._exit(0)
print("child ended with", os.waitstatus_to_exitcode(os.wait()[1]))
"""


def test_a_forked_task_fits_and_scores() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKED],
        cwd=PROJECT_DIR,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "child ended with 0" in done.stdout, done.stdout + done.stderr
    accounts, _ = done.stdout.splitlines()[-2:]
    assert int(accounts) > 100
