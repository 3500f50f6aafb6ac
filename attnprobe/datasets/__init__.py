"""Labelled images with random access, and the order and views in which training sees them.

Everything random about data is a function of (seed, epoch, index): it depends neither on
workers, nor on processes, nor on where a run was interrupted.
"""

from attnprobe.datasets.candidates import open_set
from attnprobe.datasets.loading import Loader, loader
from attnprobe.datasets.opening import open_pictures
from attnprobe.datasets.order import Batches, epoch_order
from attnprobe.datasets.pictures import Pictures
from attnprobe.datasets.trainset import Broken, TrainSet

__all__ = [
    "Batches",
    "Broken",
    "Loader",
    "Pictures",
    "TrainSet",
    "epoch_order",
    "loader",
    "open_pictures",
    "open_set",
]
