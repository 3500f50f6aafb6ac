"""What a manifest says of a model, its settings and its origin: plain values of known kinds."""

import math
from collections.abc import Callable
from typing import Any

from attnprobe.results.columns import DamageError, shown
from attnprobe.types import Provenance

DEEPEST = 12
LARGEST = 2**63  # what TOML and the tables of a page hold


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < LARGEST


def _is_workers(value: Any) -> bool:
    return _is_count(value) or (type(value) is int and value == -1)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_size(value: Any) -> bool:
    whole = isinstance(value, list) and all(type(side) is int for side in value)
    return whole and 1 <= len(value) <= 3 and all(1 <= side <= 2**20 for side in value)


def _is_ledger(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_texts, value.values()))


def _are_shares(value: Any) -> bool:
    sound = isinstance(value, dict) and all(map(_is_number, value.values()))
    return sound and all(0 <= share < math.inf for share in value.values())


def _is_mapping(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_text, value.values()))


# what each known entry is, where it stands at all
Kinds = dict[str, tuple[Callable[[Any], bool], str]]
TEXT, COUNT = (_is_text, "text"), (_is_count, "a count")
NUMBER, TEXTS = (_is_number, "a number"), (_is_texts, "a list of text")
CARD: Kinds = {
    **dict.fromkeys(("name", "architecture", "format", "source", "sha256"), TEXT),
    **dict.fromkeys(("objective", "interpolation"), TEXT),
    **dict.fromkeys(("crop_pct", "epoch"), NUMBER),
    "parameters": COUNT,
    "assumed": TEXTS,
    "input_size": (_is_size, "up to three positive integers"),
    "ledger": (_is_ledger, "lists of text by kind"),
}
CONFIG: Kinds = {
    **dict.fromkeys(("distance_unit", "entropy_unit", "prefix", "average", "divergence"), TEXT),
    **dict.fromkeys(("cka_tokens", "cka_estimator", "device", "precision", "kernel"), TEXT),
    **dict.fromkeys(("checkpoint", "images", "split"), TEXT),
    **dict.fromkeys(("limit", "maps", "resamples", "seed", "cka_batch", "query_step"), COUNT),
    "batch_size": COUNT,
    "workers": (_is_workers, "a count, or -1"),
    **dict.fromkeys(("metrics", "map_images"), TEXTS),
}
PROVENANCE: Kinds = {
    **dict.fromkeys(("images", "seed", "seconds"), (lambda value: 0 <= value < LARGEST, "a count")),
    **dict.fromkeys(("transform", "versions"), (_is_mapping, "text by name")),
    "processes": (lambda value: 1 <= value < LARGEST, "a number of processes"),
    "deviation": (_are_shares, "parts of values by name"),
}


def check_card(card: dict[str, Any]) -> None:
    """Refuse a model card in which a known entry is of another kind, or none is plain."""
    _check_plain(card, "the model card", nulls=True)
    _check_kinds(card, CARD, "the model card")


def check_config(config: dict[str, Any]) -> None:
    """Refuse settings that cannot be written as TOML, or of another kind than settings are."""
    given = {name: value for name, value in config.items() if value is not None}
    _check_plain(given, "the settings", nulls=False)
    _check_kinds(given, CONFIG, "the settings")


def check_provenance(provenance: Provenance) -> None:
    """Refuse a provenance whose numbers no run has."""
    held = vars(provenance)
    _check_plain({**held, "skipped": list(provenance.skipped)}, "the provenance", nulls=False)
    _check_kinds(held, PROVENANCE, "the provenance")


def _check_kinds(held: dict[str, Any], kinds: Kinds, where: str) -> None:
    for name, (fits, words) in kinds.items():
        if name in held and not fits(held[name]):
            raise DamageError(f"{name} of {where} is not {words}: {shown(held[name])}")


def _check_plain(value: Any, where: str, *, nulls: bool, depth: int = 0) -> None:
    """Refuse what is no text, finite number, truth value, list or mapping of such."""
    if depth > DEEPEST:
        raise DamageError(f"{where} is nested too deeply")
    if isinstance(value, dict | list):
        parts = value.items() if isinstance(value, dict) else ((depth, item) for item in value)
        for name, item in parts:
            place = f"{name!s:.40} of {where}" if isinstance(value, dict) and not depth else where
            _check_plain(item, place, nulls=nulls, depth=depth + 1)
    elif not (_is_text(value) or isinstance(value, bool) or (nulls and value is None)):
        finite = _is_number(value) and abs(value) < LARGEST and math.isfinite(value)
        if not (finite or (isinstance(value, float) and math.isfinite(value))):
            raise DamageError(f"{where} cannot be {shown(value)}")
