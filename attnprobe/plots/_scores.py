"""Names of a training run's scores, for plots and for pages that are read without plots."""

NAMES = {"knn_top1": "kNN, top-1", "linear_top1": "linear probe, top-1", "top1": "top-1"}
_BROADER = {"knn_top5": "kNN, top-5", "linear_top5": "linear probe, top-5", "top5": "top-5"}


def score_name(name: str) -> str:
    """Return the name of a score for readers.

    >>> score_name("knn_top1"), score_name("ema_top5")
    ('kNN, top-1', 'ema top5')
    """
    return {**NAMES, **_BROADER}.get(name, name.replace("_", " "))
