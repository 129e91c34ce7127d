"""What is to be fitted before a date is scored: models with their cards, clusters, recommendations."""

import logging
from datetime import date
from pathlib import Path

from include.errors import StratumError
from ml.card import write_missing_cards
from ml.champion import settle_all
from ml.cluster_card import write_cluster_cards
from ml.cluster_runs import fit_clusters_if_due
from ml.recommend_runs import fit_recommendations_if_due

log = logging.getLogger(__name__)


def fit_all_due(as_of: date, cards: Path) -> list[str]:
    """Fit all that is due for a date, and return the ids of the new models; cards of models and clusters go to a folder.

    A model that cannot be trained keeps neither clusters nor recommendations waiting. Raises StratumError, after all
    were tried, as `settle_all` does.
    """
    failure: StratumError | None = None
    trained: list[str] = []
    try:
        trained = settle_all(as_of)
    except StratumError as error:
        log.warning("%s", error)
        failure = error
    write_missing_cards(cards)
    write_cluster_cards(fit_clusters_if_due(as_of), cards)
    fit_recommendations_if_due(as_of)
    if failure is not None:
        raise failure
    return trained
