"""A methods section in sentences, from the options, geometry and tables of a result.

Each quantity has its sentences here, by convention; only what was measured is described.
"""
# ruff: noqa: RUF001 - formulas need the prime, the minus sign and the multiplication sign

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from attnprobe.frames import known
from attnprobe.report.citations import cited_for
from attnprobe.results import Result
from attnprobe.types import MetricOptions

FEW = 30  # images below which BCa intervals are known to be rough
SUM = "\N{N-ARY SUMMATION}"
PREFIX = {
    "renormalised": "A′ is the attention of patch queries over patch keys, renormalised after "
    f"the prefix tokens are dropped: A′(q, k) = A(q, k) / {SUM}ₗ A(q, l), l over patch keys.",
    "excluded": "A′ is the attention of patch queries over patch keys; the prefix tokens are "
    "dropped and the rest is not renormalised, so that rows of A′ sum to less than one.",
    "included": "A′ is the attention of patch queries over all keys they see, prefix tokens "
    "among them; a prefix token lies at distance zero.",
}
DISTANCE = {
    "px": "in input pixels",
    "tokens": "in tokens (pixels divided by the side of a token)",
    "grid": "in tokens times the side of the grid of tokens",
    "unit": "in units of the grid's side (tokens divided by the tokens a side less one)",
}
KL = "KL(i‖j) = " + SUM + "ₖ A′ᵢ(q, k) · log(A′ᵢ(q, k) / A′ⱼ(q, k))"
DIVERGENCE = {
    "kl": f"is the Kullback–Leibler divergence {KL}",
    "symmetric": f"is the mean of KL(i‖j) and KL(j‖i), with {KL}",
    "js": f"is the Jensen–Shannon divergence ½ KL(i‖m) + ½ KL(j‖m), with {KL} and "
    "m = (A′ᵢ + A′ⱼ) / 2",
}
TOKENS = {
    "mean": "the mean of the patch tokens",
    "cls": "the class token",
    "flat": "all tokens of an image, flattened,",
}


def paragraphs(result: Result) -> list[str]:
    """What a paper has to say about how these numbers were made.

    >>> sorted(DISTANCE) == sorted(["px", "tokens", "grid", "unit"])
    True
    """
    options = {**asdict(MetricOptions()), **result.config}
    held = {name for name, table in result.tables.items() if len(table)}
    writers = {
        "distance": _distance,
        "entropy": _entropy,
        "head_kl": _head_kl,
        "prefix_mass": _prefix_mass,
        "cka": _cka,
    }
    texts = [" ".join(_attention(result, options))] if held - {"cka", "layer_means"} else []
    texts += [" ".join(write(result, options)) for name, write in writers.items() if name in held]
    cited = "; ".join(reference.text for reference in cited_for(held))
    texts += [" ".join(_intervals(result)), " ".join(_machine(result))]
    return [*texts, f"References: {cited}."]


def _attention(result: Result, options: dict[str, Any]) -> Iterator[str]:
    layers = result.layers
    yield (
        "A(q, k) is the attention of query q on key k in one head of one layer: the softmax over "
        "the keys that the query sees, so that each row of A sums to one."
    )
    if max(layers["prefix"], default=0) > 0:
        yield _words(PREFIX, options["prefix"])
    else:
        yield "There are no prefix tokens, so A′ = A, over patch queries and patch keys."
    if max(layers["window_rows"], default=0) > 0:
        yield (
            "In windowed layers the keys of a query are those of its window, and pairs that the "
            "shift mask removes carry no weight."
        )
    if any(max(layers[name], default=0) > 0 for name in {"pad_rows", "pad_cols"} & set(layers)):
        yield (
            "Windows that reach beyond the image hold padding: its keys are left out of A′ and "
            "the rest renormalised, and its queries do not count."
        )
    if mask := result.provenance.transform.get("mask"):
        yield f"The model was shown masked images: {mask}."
    if options["average"] == "attention":
        yield "A was averaged over images first, and each statistic is that of the mean attention."
    else:
        yield "Each statistic is a mean over patch queries, then over images."


def _distance(result: Result, options: dict[str, Any]) -> Iterator[str]:
    yield (
        f"Attention distance is the mean over queries of {SUM}ₖ A′(q, k) · ‖c(q) − c(k)‖, with "
        f"c the centres of patches, {_words(DISTANCE, options['distance_unit'])}."
    )
    unit = next(iter(result.tables["distance"]["unit"]), "")
    uniform = _range(result, "distance_uniform", unit)
    largest = _range(result, "distance_max", unit)
    if uniform and largest:
        yield (
            f"Attention spread evenly over all visible keys would measure {uniform}; the largest "
            f"possible value, every query on its farthest visible key, is {largest}."
        )


def _entropy(result: Result, options: dict[str, Any]) -> Iterator[str]:
    base = "binary" if options["entropy_unit"] == "bits" else "natural"
    yield (
        f"Attention entropy is the mean over queries of −{SUM}ₖ A′(q, k) · log A′(q, k), with "
        f"the {base} logarithm ({options['entropy_unit']}) and 0 · log 0 = 0."
    )
    if uniform := _range(result, "entropy_uniform", options["entropy_unit"]):
        largest = options["prefix"] != "excluded"  # rows that sum to less can exceed it
        rank = ", which is the largest possible value" if largest else ""
        yield f"Uniform attention has {uniform}{rank}."


def _head_kl(_: Result, options: dict[str, Any]) -> Iterator[str]:
    kind = _words(DIVERGENCE, options["divergence"])
    yield (
        f"The divergence of head i from head j of the same layer {kind}"
        ", in nats, averaged over queries; a head's value is the mean over the other heads, and a "
        "layer's the mean over its heads."
    )


def _prefix_mass(*_: Any) -> Iterator[str]:
    yield (
        "Prefix mass is the part of A that patch queries give to a prefix token (class, "
        "distillation or register token), averaged over queries; a layer's value adds the tokens "
        "up and averages the heads."
    )


def _cka(_: Result, options: dict[str, Any]) -> Iterator[str]:
    yield (
        "Similarity of two layers is linear centred kernel alignment, CKA(a, b) = HSIC(K, L) / "
        "√(HSIC(K, K) · HSIC(L, L)), where K and L hold the inner products between images, "
        "in a and in b, of "
        f"{_words(TOKENS, options['cka_tokens'])} at the block's output."
    )
    if options["cka_estimator"] == "unbiased":
        yield (
            f"HSIC is the unbiased estimator, summed over mini-batches of {options['cka_batch']} "
            "images."
        )
    else:
        yield "HSIC is the biased estimator, which is too high where features outnumber images."


def _intervals(result: Result) -> Iterator[str]:
    images, config = result.provenance.images, result.config
    yield f"{images} image{'' if images == 1 else 's'} {'was' if images == 1 else 'were'} measured."
    bounded = (table for table in result.tables.values() if "low" in table and len(table))
    if not any(len(known(table, "low", "high")) for table in bounded):
        yield "No intervals are given."
        return
    draws = f" with {config['resamples']} draws" if "resamples" in config else ""
    yield (
        f"Intervals are 95 % BCa bootstrap intervals over images{draws} "
        f"(seed {result.provenance.seed})."
    )
    yield f"Such intervals are approximate below about {FEW} images" + (
        ", as here." if images < FEW else "."
    )
    if config.get("images") == "bundled":
        yield (
            "The bundled images are 64 crops from 23 photographs, so that intervals over crops are "
            "somewhat too narrow for photographs at large."
        )


def _machine(result: Result) -> Iterator[str]:
    facts = result.provenance
    several = f", in {facts.processes} processes" if facts.processes > 1 else ""
    yield (
        f"The forward passes computed in {facts.precision} on {facts.device}{several}; attention "
        f"was measured in fp32 by the {facts.kernel} kernel."
    )
    if (step := result.config.get("query_step", 1)) != 1:
        yield f"Of the patch queries one in {step} was measured, in reading order."
    if facts.deviation:
        named = ", ".join(f"{name} {_percent(x)}" for name, x in sorted(facts.deviation.items()))
        yield (
            "On the first images this precision moved no value further from fp32 than this part "
            f"of it: {named} (for cka: that much of 1)."
        )


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"


def _words(sentences: dict[str, str], convention: Any) -> str:
    """The words for a convention; its own name where a newer release wrote the result."""
    return sentences.get(str(convention), f"({convention}, as defined below)")


def _range(result: Result, column: str, unit: str) -> str:
    """A quantity of the geometry: one value, or the least and the greatest over layers."""
    values = result.layers[column].dropna() if column in result.layers else []
    if not len(values):
        return ""
    low, high = f"{min(values):.4g}", f"{max(values):.4g}"
    return f"{low} {unit}" if low == high else f"{low} to {high} {unit}, depending on the layer"
