"""Whether a stored result is one: its tables, per-image values, facts and arrays. Torch-free.

Result folders come from strangers. What figures, tables and comparisons rely on is checked here
once, so that they need not: columns and their kinds, keys within the model's layers and heads,
finite numbers, and sizes that a page can hold.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from attnprobe.errors import ResultError
from attnprobe.results import columns, facts, stored
from attnprobe.results.columns import DamageError, integers, numbers, texts

if TYPE_CHECKING:
    from attnprobe.results import Result

REMEDY = "run the analysis again"
LAYERS, HEADS, IMAGES, METRICS = 4096, 4096, 10**7, 256  # at most
PAIRS = 2**22  # pairs of heads in all layers
TOKENS = 2**22  # patches of all layers
SIDE = 2048  # patches a side
SIDES = 2**24  # sum of the squares of all sides
PATCH = (1e-3, 1e6)  # pixels
UNIT, NAME = 40, 80  # characters
KEYS = {
    "distance": ("layer", "head"),
    "entropy": ("layer", "head"),
    "head_kl": ("layer", "head_a", "head_b"),
    "head_kl_mean": ("layer", "head"),
    "prefix_mass": ("layer", "head", "token"),
    "cka": ("layer_a", "layer_b"),
}
AXES = ("layer", "layer_a", "layer_b", "head", "head_a", "head_b", "token")
MEANS = (
    *("value", "low", "high", "head_min", "head_max", "head_sd"),
    *("uniform", "fraction"),
)
# what a check of a stranger's table may come upon beside what it looks for
ODD = (ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError, MemoryError)


def check(result: "Result", place: object) -> None:
    """Refuse a result in which something is missing, of the wrong kind or beyond belief.

    Args:
        result: The result as it was read.
        place: The folder that it was read from.

    Raises:
        ResultError: It is damaged; the cause names the table and column, or the fact.
    """
    guarded(lambda: _check(result), place, REMEDY)


def guarded(work: Callable[[], None], place: object, remedy: str) -> None:
    """Run checks and turn what they find into one error about `place`.

    Raises:
        ResultError: Something is damaged.
    """
    try:
        work()
    except DamageError as error:
        raise ResultError(f"{place} is damaged: {error}", remedy) from error
    except ODD as error:
        raise ResultError(f"{place} is damaged: {columns.shown(str(error))}", remedy) from error


def _check(result: "Result") -> None:
    facts.check_card(result.model)
    facts.check_config(result.config)
    facts.check_provenance(result.provenance)
    whole = {"layers": result.layers, "images": result.images, **result.tables}
    for name, frame in whole.items():
        columns.check_frame(frame, f"the table {name}")
    for name, frame in result.samples.items():
        columns.check_frame(frame, f"the samples {name}")
    heads = _check_layers(result.layers)
    _check_images(result.images)
    _check_means(result.tables["layer_means"], len(heads))
    for name, frame in result.tables.items():
        if name != "layer_means":
            _check_table(name, frame, heads)
    for name, frame in result.samples.items():
        _check_samples(name, frame, heads, len(result.images))
    for name, parts in result.arrays.items():
        stored.check(name, parts, result.layers, len(result.images))


def _check_layers(frame: pd.DataFrame) -> np.ndarray:
    """Check the table of layers and return the heads of each."""
    table, count = "the table layers", len(frame)
    if not 1 <= count <= LAYERS:
        raise DamageError(f"{table} has {count} rows, not 1 to {LAYERS}")
    layer = integers(frame, table, "layer", within=(0, count - 1))
    if not np.array_equal(layer, np.arange(count)):
        raise DamageError(f"the column layer of {table} does not count from 0")
    texts(frame, table, "name")
    heads = integers(frame, table, "heads", within=(1, HEADS))
    if (heads**2).sum() > PAIRS:
        raise DamageError(f"the column heads of {table} has more heads than fit a page")
    for name in ("stage", "head_dim", "prefix"):
        integers(frame, table, name, within=(0, 2**22))
    _check_grids(frame, table)
    for name in ("distance_uniform", "distance_max", "entropy_uniform"):
        numbers(frame, table, name, within=(0, columns.LARGEST), untyped=True)
    return heads


def _check_grids(frame: pd.DataFrame, table: str) -> None:
    """Refuse grids that are too large, not tiled by their windows, or of odd patches."""
    rows, down = _side(frame, table, "rows", "h")
    cols, right = _side(frame, table, "cols", "w")
    if ((rows > 0) != (cols > 0)).any():
        raise DamageError(f"the columns rows and cols of {table} make no grid")
    if ((down > 0) != (right > 0)).any():
        raise DamageError(f"the columns window_rows and window_cols of {table} make no window")
    if (rows * cols).sum() > TOKENS or (rows**2 + cols**2).sum() > SIDES:
        raise DamageError(f"the columns rows and cols of {table} have more patches than fit a page")
    patches = integers(frame, table, "patches", within=(0, TOKENS))
    expected = np.where(down > 0, down * right, rows * cols)
    keys = _key_patches(frame, table)
    if not np.array_equal(patches, np.where(keys > 0, keys, expected)):
        raise DamageError(f"the column patches of {table} does not fit its grids")
    if (_counts(frame, table, "kept") > rows * cols).any():
        raise DamageError(f"the column kept of {table} is above its patches")


def _side(frame: pd.DataFrame, table: str, side: str, letter: str) -> tuple[np.ndarray, np.ndarray]:
    """Check the sizes along one side; return those of the grids and of their windows."""
    size = integers(frame, table, side, within=(0, SIDE))
    window = integers(frame, table, f"window_{side}", within=(0, SIDE))
    shift = integers(frame, table, f"shift_{side}", within=(0, SIDE))
    numbers(frame, table, f"patch_{letter}", within=PATCH, untyped=True)
    whole = size + _counts(frame, table, f"pad_{side}")
    if (whole % np.maximum(window, 1) > 0).any() or (window > whole).any():
        raise DamageError(f"the column window_{side} of {table} does not divide the {side}")
    if (shift >= np.maximum(window, 1)).any():
        raise DamageError(f"the column shift_{side} of {table} is not under the window")
    if (whole - size >= np.maximum(window, 1)).any():
        raise DamageError(f"the column pad_{side} of {table} is not under the window")
    _counts(frame, table, f"dilation_{side}", 1)
    for name in ("origin", "key_origin"):
        if f"{name}_{side}" in frame:
            numbers(frame, table, f"{name}_{side}", within=(-PATCH[1], PATCH[1]), untyped=True)
    return size, window


def _key_patches(frame: pd.DataFrame, table: str) -> np.ndarray:
    """Check keys that lie elsewhere than the queries; return how many there are, 0 for none."""
    rows, cols = (_counts(frame, table, f"key_{side}") for side in ("rows", "cols"))
    down, right = (_counts(frame, table, f"key_window_{side}") for side in ("rows", "cols"))
    if ((rows > 0) != (cols > 0)).any() or ((down > 0) != (right > 0)).any():
        raise DamageError(f"the columns key_rows and key_cols of {table} make no grid")
    for name in ("key_patch_h", "key_patch_w"):
        if name in frame:
            patch = numbers(frame, table, name, within=PATCH, untyped=True)
            if (np.isnan(patch) & (rows > 0)).any():
                raise DamageError(f"the column {name} of {table} is missing a size")
    return np.where(down > 0, down * right, rows * cols)


def _counts(frame: pd.DataFrame, table: str, name: str, absent: int = 0) -> np.ndarray:
    """Return a column of counts that results of earlier releases lack."""
    if name not in frame:
        return np.full(len(frame), absent)
    return integers(frame, table, name, within=(absent, SIDE if name != "kept" else TOKENS))


def _check_images(frame: pd.DataFrame) -> None:
    table, count = "the table images", len(frame)
    if not 1 <= count <= IMAGES:
        raise DamageError(f"{table} has {count} rows, not 1 to {IMAGES}")
    image = integers(frame, table, "image", within=(0, count - 1))
    if not np.array_equal(image, np.arange(count)):
        raise DamageError(f"the column image of {table} does not count from 0")
    texts(frame, table, "id")


def _check_means(frame: pd.DataFrame, layers: int) -> None:
    table = "the table layer_means"
    metric = texts(frame, table, "metric", longest=NAME, form=r"\w+")
    layer = integers(frame, table, "layer", within=(0, layers - 1))
    for name in MEANS:
        numbers(frame, table, name)
    _check_words(frame, table)
    rank, known = pd.factorize(metric)
    if len(known) > METRICS:
        raise DamageError(f"the column metric of {table} has {len(known)} metrics")
    columns.check_unique([rank, layer], table)


def _check_table(name: str, frame: pd.DataFrame, heads: np.ndarray) -> None:
    """Check a table of one metric; of those that nobody knows, what they share with others."""
    table, known = f"the table {name}", name in KEYS
    keys = KEYS[name] if known else [axis for axis in AXES if axis in frame.columns]
    parts = _keys(frame, table, keys, heads)
    values = ("value", "low", "high")
    for column in values if known else frame.columns.intersection(values):
        numbers(frame, table, column)
    _check_words(frame, table, needed=known or "value" in frame.columns)
    if known:
        columns.check_unique(parts, table)


def _check_samples(name: str, frame: pd.DataFrame, heads: np.ndarray, images: int) -> None:
    table = f"the samples {name}"
    held = [axis for axis in AXES if axis in frame.columns]
    image = integers(frame, table, "image", within=(0, images - 1))
    parts = _keys(frame, table, KEYS.get(name, held), heads)
    numbers(frame, table, "value")
    if name in KEYS:
        columns.check_whole(image, parts, table)


def _keys(frame: pd.DataFrame, table: str, keys: Any, heads: np.ndarray) -> list[np.ndarray]:
    """Return the key columns as counts, each within the layers and the heads of its layer."""
    layer: np.ndarray | None = None
    found = []
    for key in keys:
        if key == "token":
            words = texts(frame, table, key, longest=NAME)
            found.append(pd.factorize(words)[0].astype(np.int64))
            continue
        most = len(heads) if key.startswith("layer") else int(heads.max())
        found.append(integers(frame, table, key, within=(0, most - 1)))
        if key == "layer":
            layer = found[-1]
        elif layer is not None and key.startswith("head") and (found[-1] >= heads[layer]).any():
            raise DamageError(f"the column {key} of {table} has a head that its layer lacks")
    return found


def _check_words(frame: pd.DataFrame, table: str, *, needed: bool = True) -> None:
    for name, longest in (("unit", UNIT), ("definition", columns.LONGEST_TEXT)):
        if needed or name in frame.columns:
            texts(frame, table, name, longest=longest)
