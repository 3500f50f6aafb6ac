"""Comparison: two to eight results side by side, with statistics and verdicts. Torch-free.

A comparison is a function of results and options alone, so a saved one is the saved results, the
options and, for others to read, the tables:

    config.toml manifest.json verdicts.csv summary.csv tables/*.parquet runs/<nn>-<name>/...
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from attnprobe import claims
from attnprobe.comparison import differences, headsets, notes, pairing, similarity, verdicts
from attnprobe.comparison import folder as saving
from attnprobe.comparison.options import CompareOptions, check_options
from attnprobe.results import Result

__all__ = ["CompareOptions", "Comparison", "compare"]

Progress = Callable[[int, int], None]
PER_PAIR = {
    "differences": differences.table,
    "overall": differences.overall,
    "head_sets": headsets.table,
    "running": differences.running,
    "cross_cka": similarity.table,
}


@dataclass(frozen=True)
class Comparison:
    """Results of several models on the same images, and what sets them apart.

    Attributes:
        results: The models' results, under labels that differ.
        options: How they were compared.
        tables: Models are numbered from 0 in `model_a` and `model_b`; values are a - b.
            `models` (model, name, layers, ...);
            `differences` (metric, scale, alignment, position, depth, layer_a, layer_b, value_a,
            value_b, value, low, high, p, q, effect, images_needed, unit, definition);
            `overall` (the same over all layers); `head_sets` (metric, scale, layer_a, layer_b,
            wasserstein, spread_a, spread_b, value, low, high); `assignment` on request;
            `running` (metric, scale, images, value, low, high); `cross_cka` (layer_a, layer_b,
            value, low, high); `verdicts` (claim, statement, verdict, evidence, value, low, high,
            limit).
        notes: What a reader has to know about how the models were measured.
    """

    results: tuple[Result, ...]
    options: CompareOptions
    tables: dict[str, pd.DataFrame]
    notes: tuple[str, ...] = ()

    def save(
        self,
        folder: str | Path,
        *,
        overwrite: bool = False,
        texts: dict[str, str] | None = None,
        config: dict[str, Any] | None = None,
    ) -> Path:
        """Write the comparison, its results among it, and return its path.

        Args:
            folder: Where to write.
            overwrite: Replace an older comparison there.
            texts: More files to put beside the tables, by name (report, log).
            config: What to write as config.toml; the options by default.

        Raises:
            OutputError: The folder exists (and `overwrite` is false) or cannot be written.
        """
        settings = self.options.flat() if config is None else config
        files = saving.files_of(self, texts or {}, settings)
        return saving.save(self, Path(folder), overwrite=overwrite, files=files)

    @staticmethod
    def load(folder: str | Path) -> "Comparison":
        """Read the results of a saved comparison and compare them again, by its own options.

        Raises:
            ResultError: The folder holds no comparison, or a damaged or newer one.
        """
        results, options = saving.load(Path(folder))
        return compare(results, options=options)


def compare(
    results: Sequence[Result | str | Path],
    *,
    options: CompareOptions | None = None,
    progress: Progress | None = None,
    **changes: Any,
) -> Comparison:
    """Compare two to eight models that were measured on the same images.

    Args:
        results: Results, or folders of saved ones.
        options: How to compare.
        progress: Called with pairs done and pairs in all.
        **changes: Fields of `CompareOptions` to set, e.g. `confidence=0.99`.

    Returns:
        Tables of paired differences, similarities and verdicts, with intervals over images.

    Raises:
        AttnprobeError: The results differ in images or conventions, or an option is unusable.

    Example:
        >>> from attnprobe.comparison.pairing import pairs
        >>> pairs(["mae", "deit", "dino"])  # the pairs of models that tables speak of
        [(0, 1), (0, 2), (1, 2)]
    """
    chosen = replace(options or CompareOptions(), **changes)
    check_options(chosen)
    claims.thresholds(chosen.thresholds)
    held = [item if isinstance(item, Result) else Result.load(item) for item in results]
    labelled = pairing.checked(held)
    tables = {"models": _models(labelled)}
    per_pair = dict(PER_PAIR)
    if chosen.match_heads:
        per_pair["assignment"] = headsets.assignment
    couples = pairing.pairs(labelled)
    parts: dict[str, list[pd.DataFrame]] = {name: [] for name in per_pair}
    for done, (a, b) in enumerate(couples, start=1):
        for name, make in per_pair.items():
            parts[name].append(make(labelled[a], labelled[b], (a, b), chosen))
        if progress:
            progress(done, len(couples))
    tables |= {name: pd.concat(found, ignore_index=True) for name, found in parts.items()}
    tables["verdicts"] = verdicts.table(labelled, chosen)
    return Comparison(labelled, chosen, tables, tuple(notes.notes(labelled)))


def _models(results: Sequence[Result]) -> pd.DataFrame:
    rows = [
        {
            "model": at,
            "name": result.name,
            "architecture": result.model.get("architecture", ""),
            "objective": result.model.get("objective", ""),
            "layers": len(result.layers),
            "heads": int(result.layers["heads"].to_numpy().max()),
            "images": result.provenance.images,
            "precision": result.provenance.precision,
            "weights_sha256": result.provenance.weights_sha256,
        }
        for at, result in enumerate(results)
    ]
    return pd.DataFrame(rows)
