"""A page's opening paragraph, put together from the numbers and judging none of them."""

from collections.abc import Iterator

import pandas as pd

from attnprobe.results import Result


def sentences(result: Result) -> list[str]:
    """What was measured and the range of each metric over the layers.

    Every number is read from the tables; a metric that was not measured has no sentence.
    """
    return [text for part in (_measured, _means, _pairs, _brackets) for text in part(result)]


def _measured(result: Result) -> Iterator[str]:
    heads = sorted(result.layers["heads"].unique())
    span = f"{heads[0]}" if len(heads) == 1 else f"{heads[0]} to {heads[-1]}"
    images = result.provenance.images
    yield (
        f"{_count(len(result.layers), 'attention layer')} of {_count(span, 'head')} "
        f"were measured on {_count(images, 'image')}."
    )


def _means(result: Result) -> Iterator[str]:
    for metric, write in (("distance", _distance), ("entropy", _entropy), ("head_kl", _diversity)):
        means = _layer_means(result, metric)
        if not means.empty:
            yield write(means)


def _distance(means: pd.DataFrame) -> str:
    first, last, unit = means.iloc[0], means.iloc[-1], means["unit"].iloc[0]
    text = f"Averaged over heads, a patch attends {_near(first)} {unit} away in the first layer"
    if len(means) > 1:
        text += f" and {_near(last)} {unit} in the last"
    if pd.notna(last.get("fraction")):
        text += f" ({_percent(means['fraction'])} of what uniform attention would give)"
    text += (
        f"; single heads range from {_short(means['head_min'].min())} "
        f"to {_short(means['head_max'].max())} {unit}."
    )
    return text


def _entropy(means: pd.DataFrame) -> str:
    low, high = means.loc[means["value"].idxmin()], means.loc[means["value"].idxmax()]
    unit = means["unit"].iloc[0]
    return (
        f"Attention is most focused in layer {low['layer'] + 1} (mean entropy "
        f"{_near(low)} {unit}) and most spread out in layer {high['layer'] + 1} ({_near(high)})."
    )


def _diversity(means: pd.DataFrame) -> str:
    low, high = means.loc[means["value"].idxmin()], means.loc[means["value"].idxmax()]
    unit = means["unit"].iloc[0]
    return (
        f"The heads of a layer differ most in layer {high['layer'] + 1} (mean divergence "
        f"{_near(high)} {unit}) and least in layer {low['layer'] + 1} ({_near(low)})."
    )


def _pairs(result: Result) -> Iterator[str]:
    cka = result.tables.get("cka")
    if cka is None or cka.empty or len(result.layers) < 2:
        return
    first, last = cka["layer_a"].min(), cka["layer_a"].max()
    ends = cka[(cka["layer_a"] == first) & (cka["layer_b"] == last)].dropna(subset=["value"])
    if not ends.empty:
        yield f"The outputs of the first and the last layer have a CKA of {_near(ends.iloc[0])}."


def _brackets(result: Result) -> Iterator[str]:
    if any(table["low"].notna().any() for table in result.tables.values() if "low" in table):
        yield "Brackets hold 95 % intervals over images."


def _layer_means(result: Result, metric: str) -> pd.DataFrame:
    means = result.tables.get("layer_means", pd.DataFrame())
    if means.empty:
        return means
    return means[means["metric"] == metric].dropna(subset=["value"]).sort_values("layer")


def _near(row: pd.Series) -> str:
    if pd.isna(row["low"]) or pd.isna(row["high"]):
        return _short(row["value"])
    return f"{_short(row['value'])} [{_short(row['low'])}, {_short(row['high'])}]"


def _short(value: float) -> str:
    """Three significant digits, trailing zeros kept.

    >>> _short(69.0), _short(114.4)
    ('69.0', '114')
    """
    return f"{value:#.3g}".rstrip(".")


def _percent(fraction: pd.Series) -> str:
    known = fraction.dropna()
    low, high = f"{100 * known.iloc[0]:.0f}", f"{100 * known.iloc[-1]:.0f}"
    return f"{low} %" if len(known) == 1 else f"{low} % and {high} %"


def _count(number: int | str, noun: str) -> str:
    return f"{number} {noun}" if str(number) == "1" else f"{number} {noun}s"
