"""Which LaTeX tables results fill: the models, and the layer means of every metric."""

from typing import Any

import pandas as pd

from attnprobe.frames import layer_means
from attnprobe.publication import latex
from attnprobe.publication.latex import Column
from attnprobe.report.sections import LEADS
from attnprobe.results import Result

LONGEST = 40  # letters of a model's name
CARD = {
    "model": "Model",
    "architecture": "Architecture",
    "objective": "Objective",
    "parameters": "Parameters (M)",
    "layers": "Layers",
    "heads": "Heads",
    "input": "Input (px)",
    "patch": "Patch (px)",
    "images": "Images",
}


def tables(results: list[Result]) -> dict[str, str]:
    """Return every table as LaTeX, by file name without its ending."""
    metrics = [
        name
        for result in results
        for name in result.tables["layer_means"].dropna(subset="value")["metric"]
    ]
    order = [*LEADS, *sorted(set(metrics))]
    found = {"models": models(results)}
    for metric in sorted(set(metrics), key=order.index):
        found[metric] = by_layer(metric, results)
    return found


def models(results: list[Result]) -> str:
    """One row a model: what it is and on how many images it was measured."""
    frame = pd.DataFrame([_card(result) for result in results])
    columns = [
        Column(key, heading, lead=key == "model", places=1 if key == "parameters" else None)
        for key, heading in CARD.items()
        if bool(frame[key].notna().any())
    ]
    return latex.table(frame, columns, caption="Models and how they were read.", label="models")


def by_layer(metric: str, results: list[Result]) -> str:
    """One row a layer: the mean over heads of every model, with its interval."""
    means = [layer_means(result, metric) for result in results]
    held = [(result, frame) for result, frame in zip(results, means, strict=True) if len(frame)]
    whole: Any = pd.concat([frame for _, frame in held])
    places = latex.decimals(whole["value"], whole["low"], whole["high"])
    units = list(dict.fromkeys(unit for unit in whole["unit"] if unit))
    frame = pd.DataFrame({"layer": sorted({layer + 1 for layer in whole["layer"]})})
    columns = [Column("layer", "Layer", lead=True)]
    for rank, (result, part) in enumerate(held):
        keys = {end: f"{end} {rank}" for end in ("value", "low", "high")}
        values = part.assign(layer=part["layer"] + 1).rename(columns=keys)
        frame = frame.merge(values[["layer", *keys.values()]], on="layer", how="left")
        name = short(result.name)
        unit = next(iter(part["unit"]), "")
        columns.append(
            Column(
                keys["value"],
                f"{name} ({unit})" if len(units) > 1 and unit else name,
                ends=(keys["low"], keys["high"]) if bool(part["low"].notna().any()) else None,
                places=places,
            )
        )
    caption = _caption(metric, held, units)
    return latex.table(frame, columns, caption=caption, label=f"{metric} by layer")


def _card(result: Result) -> dict[str, object]:
    card: dict[str, Any] = result.model
    layers: Any = result.layers
    millions = card.get("parameters")
    return {
        "model": short(result.name),
        "architecture": card.get("architecture"),
        "objective": card.get("objective"),
        "parameters": millions / 1e6 if isinstance(millions, int) else None,
        "layers": len(layers),
        "heads": _span(layers["heads"]),
        "input": _times((card.get("input_size") or ())[-2:]),
        "patch": _times((layers["patch_h"].iloc[0], layers["patch_w"].iloc[0])),
        "images": len(result.images),
    }


def _caption(metric: str, held: list[tuple[Result, pd.DataFrame]], units: list[str]) -> str:
    title = LEADS.get(metric, (metric.replace("_", " ").capitalize(), ""))[0]
    unit = f" ({units[0]})" if len(units) == 1 else ""
    counts = dict.fromkeys(len(result.images) for result, _ in held)
    images = f"{', '.join(str(count) for count in counts)} images"
    spread = any(frame["low"].notna().any() for _, frame in held)
    ends = ", with its 95 % bootstrap interval over images" if spread else ""
    made = {short(result.name): frame["definition"].iloc[0] for result, frame in held}
    words = dict.fromkeys(made.values())
    said = (
        f"Definition: {next(iter(words))}."
        if len(words) == 1
        else "Definitions: " + "; ".join(f"{name}: {text}" for name, text in made.items()) + "."
    )
    return f"{title}{unit} by layer: mean over heads and {images}{ends}. {said}"


def short(name: str) -> str:
    """Return a model's name, cut where it is very long."""
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}\N{HORIZONTAL ELLIPSIS}"


def _span(counts: Any) -> str:
    """Return one number, or the lowest and the highest of several."""
    low, high = counts.min(), counts.max()
    return str(low) if low == high else f"{low}\N{EN DASH}{high}"


def _times(sizes: Any) -> str | None:
    """Return sides joined by a cross."""
    sides = [f"{side:g}" for side in sizes if pd.notna(side)]
    return " \N{MULTIPLICATION SIGN} ".join(sides) or None
