"""Criteria by which the number of clusters of a class is chosen, one a file. A new one is a file and a line here."""

from fgdemo.clustering.criteria.bic import BIC
from fgdemo.clustering.criteria.cosine_index import COSINE_INDEX, COSINE_INDEX_AS_PUBLISHED
from fgdemo.clustering.criteria.division import Criterion, Division
from fgdemo.clustering.criteria.exact_silhouette import EXACT_SILHOUETTE
from fgdemo.clustering.criteria.gap import GAP
from fgdemo.clustering.criteria.prediction_strength import PREDICTION_STRENGTH
from fgdemo.clustering.criteria.principal_gap import PRINCIPAL_GAP
from fgdemo.clustering.criteria.silhouette import SILHOUETTE
from fgdemo.clustering.criteria.stability import STABILITY

CRITERIA: dict[str, Criterion] = {
    "principal-gap": PRINCIPAL_GAP,
    "silhouette": SILHOUETTE,
    "exact-silhouette": EXACT_SILHOUETTE,
    "bic": BIC,
    "stability": STABILITY,
    "gap": GAP,
    "prediction-strength": PREDICTION_STRENGTH,
    "cosine-index": COSINE_INDEX,
    "cosine-index-as-published": COSINE_INDEX_AS_PUBLISHED,
}

__all__ = ["CRITERIA", "Criterion", "Division"]
