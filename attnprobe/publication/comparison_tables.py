"""LaTeX tables of a comparison: verdicts by model and between models, differences."""

from typing import Any

from attnprobe.comparison import Comparison
from attnprobe.comparison.verdicts import NOBODY
from attnprobe.frames import rows
from attnprobe.publication import latex
from attnprobe.publication.latex import Column
from attnprobe.publication.tables import short

QUANTITIES = {
    "distance": "Attention distance",
    "entropy": "Attention entropy",
    "head_kl": "Divergence between heads",
}


def comparison_tables(comparison: Comparison) -> dict[str, str]:
    """Return every table about a comparison as LaTeX, by file name without its ending."""
    found = {"verdicts": verdicts(comparison), "verdicts_between": between(comparison)}
    if not comparison.tables["overall"].empty:
        found["differences_overall"] = overall(comparison)
    return found


def verdicts(comparison: Comparison) -> str:
    """One row a claim and model: the verdict and the number that carries it."""
    table = comparison.tables["verdicts"]
    return _verdicts(comparison, table.loc[table["model_b"] == NOBODY], "by model")


def between(comparison: Comparison) -> str:
    """One row a claim and pair of models."""
    table = comparison.tables["verdicts"]
    return _verdicts(comparison, table.loc[table["model_b"] != NOBODY], "between models")


def overall(comparison: Comparison) -> str:
    """One row a pair, metric and scale: the difference over all layers with its tests."""
    frame: Any = comparison.tables["overall"]
    frame = frame.assign(
        pair=[_pair(comparison, row.model_a, row.model_b) for row in rows(frame)],
        quantity=[_quantity(row) for row in rows(frame)],
    )
    columns = [
        Column("pair", "Models", lead=True),
        Column("quantity", "Quantity", lead=True),
        Column("value", "Difference", ends=("low", "high"), places=4),
        Column("p", "p", places=4),
        Column("effect", "d", places=2),
    ]
    images, level = comparison.results[0].provenance.images, 100 * comparison.options.confidence
    caption = (
        f"Paired differences over all layers on {images} images, the first model less the second, "
        f"with {level:g} % BCa bootstrap intervals over images, two-sided paired permutation "
        "tests and standardised mean differences d."
    )
    return latex.table(frame, columns, caption=caption, label="differences overall")


def _verdicts(comparison: Comparison, frame: Any, words: str) -> str:
    about = [
        short(comparison.results[row.model_a].name)
        if row.model_b == NOBODY
        else _pair(comparison, row.model_a, row.model_b)
        for row in rows(frame)
    ]
    alone = words == "by model"
    columns = [
        Column("title", "Claim", lead=True),
        Column("about", "Model" if alone else "Models", lead=True),
        Column("verdict", "Verdict"),
        Column("value", "Value" if alone else "Difference", ends=("low", "high"), places=3),
        Column("limit", "Limit" if alone else "Margin", places=2),
    ]
    images, level = comparison.results[0].provenance.images, 100 * comparison.options.confidence
    quantities = dict(zip(frame["title"], frame["quantity"], strict=True))
    told = "; ".join(f"{title}: {text}" for title, text in quantities.items())
    caption = (
        f"Verdicts {words} on {images} images: supported where the whole {level:g} % interval lies "
        f"on the claimed side of the limit, contradicted where it lies on the other. {told}."
    )
    return latex.table(
        frame.assign(about=about), columns, caption=caption, label=f"verdicts {words}"
    )


def _pair(comparison: Comparison, a: int, b: int) -> str:
    first, second = (short(comparison.results[at].name) for at in (a, b))
    return f"{first} \N{MINUS SIGN} {second}"


def _quantity(row: Any) -> str:
    name = QUANTITIES.get(row.metric, str(row.metric))
    unit = str(row.unit if row.scale == "value" else row.scale)
    return f"{name} ({unit})" if unit else name
