"""One row a statement of the paper: what it says, what was measured, and whether it holds."""

import pandas as pd

from attnprobe.study.folder import Study
from attnprobe.study.statements import statements

COLUMNS = [
    *("finding", "topic", "says", "place", "measured", "verdict", "rule"),
    *("value", "low", "high", "limit", "over", "seeds"),
]


def findings(study: Study) -> pd.DataFrame:
    """Judge every statement on what the study holds so far.

    Returns:
        finding, topic, says, place; measured (in words), verdict (see `judging.VERDICTS`), rule
        (when it holds); value, low, high and limit of the number that decided; what the interval
        is over (seeds, images, runs), and the seeds used of each method.
    """
    rows = []
    for one in statements():
        told = {"finding": one.key, "topic": one.topic, "says": one.says, "place": one.place}
        rows.append(told | {"rule": one.rule} | vars(one.judge(study)))
    return pd.DataFrame(rows, columns=COLUMNS)
