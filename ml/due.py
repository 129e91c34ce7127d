"""What is to be fitted before a date is scored: models with their cards, clusters, recommendations."""

import logging
from datetime import date
from pathlib import Path

from include.errors import StratumError
from include.warehouse.connect import connect
from ml.card import write_card, write_missing_cards
from ml.champion import champion_on, settle_all
from ml.cluster_card import write_missing_cluster_cards
from ml.cluster_runs import fit_clusters_if_due
from ml.recommend_runs import fit_recommendations_if_due
from ml.targets import MODELS

log = logging.getLogger(__name__)


def fit_all_due(as_of: date, cards: Path) -> list[str]:
    """Fit all that is due for a date, and return the ids of the new models; cards of models and clusters go to a folder.

    Where a model was trained, the cards of those that score the date are written anew: drift and decisions came since.
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
    if trained:
        write_champions_cards(as_of, cards)
    write_missing_cards(cards)
    fit_clusters_if_due(as_of)
    write_missing_cluster_cards(cards)
    fit_recommendations_if_due(as_of)
    if failure is not None:
        raise failure
    return trained


def write_champions_cards(as_of: date, folder: Path) -> list[Path]:
    """Write the card of each model that scores a date, over the one that is there; return the pages."""
    with connect("scorer") as connection:
        champions = [champion_on(connection, model, as_of) for model in MODELS]
    found = [one.model_id for one in champions if one is not None]
    return [write_card(model_id, folder / f"{model_id}.html") for model_id in found]
