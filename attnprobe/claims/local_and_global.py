"""Every layer keeps local and global heads side by side (Xie et al. 2023, sec. 3.1)."""

from attnprobe.claims import Claim, Quantity, Thresholds
from attnprobe.claims._spread import spread
from attnprobe.results import Result


def _measure(result: Result, thresholds: Thresholds) -> Quantity | str:
    del thresholds
    return spread(result, "distance", " with a place for their tokens")


CLAIM = Claim(
    name="local_and_global",
    title="Local and global heads together",
    needs=("distance",),
    statement="{a} keeps local and global heads together in every layer",
    versus="{a} keeps local and global heads together more than {b} in its last layers",
    quantity="standard deviation over a layer's heads of attention distance, as a part of what "
    "uniform attention would give, above {spread:g}",
    versus_quantity="spread of head distance as a part of uniform attention's distance, mean of "
    "the last third of the layers",
    limit="spread",
    thresholds={"spread": 0.1},
    below=False,
    measure=_measure,
)
