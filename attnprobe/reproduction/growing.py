"""A study goes on in its folder: its runs have to be those of the folder, or more."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from attnprobe.reproduction.budgets import Budget

_WORDS = ("name", "model", "cost")  # which change no number
_BY_METHOD = ("epochs", "methods", "finetunings")
_ABSENT = "nothing"


def joined(
    budget: Budget, before: dict[str, Any], *, methods: Sequence[str], seeds: int, epochs: int
) -> Budget:
    """Return a budget that has what a study has, and what is asked for in addition.

    Args:
        budget: The whole budget.
        before: What study.toml says.
        methods: Methods to add, or to give more seeds; those of the study if empty.
        seeds: Trainings that each of them has at the least; as it is if 0, and as the budget says
            for new ones.
        epochs: Epochs of each training of added methods, or of all where none is named; as it is
            if 0.

    Raises:
        AttnprobeError: The budget has no such method.
    """
    budget.check_methods(methods)
    held = {method: count for method, count in before["seeds"].items() if count}
    wanted = {method: held.get(method, 0) for method in budget.seeds}
    for method in methods or held:
        wanted[method] = max(wanted[method], seeds or wanted[method] or budget.seeds[method])
    lengths = {m: before["epochs"][m] if m in held else count for m, count in budget.epochs.items()}
    return replace(
        budget,
        seeds=wanted,
        epochs={
            m: count if m in held and methods else epochs or count for m, count in lengths.items()
        },
        drops=[method for method in budget.drops if wanted[method]],
    )


def change(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Say what differs so that runs of the one are no runs of the other; empty if nothing does.

    Args:
        before: What study.toml says.
        now: What is asked for. More methods, seeds and fine-tunings are no difference, nor is
            what concerns methods that were not part of it.

    >>> before = {"seeds": {"mae": 1}, "epochs": {"mae": 3}, "images": 8}
    >>> change(before, before | {"seeds": {"mae": 3}})
    ''
    >>> change(before, before | {"images": 16})
    'images: 8, now 16'
    """
    for method, count in before["seeds"].items():
        if count > now["seeds"].get(method, 0):
            return f"seeds of {method}: {count}, now {now['seeds'].get(method, 0)}"
    for name in ("dropped", "drops"):
        if not set(before.get(name, ())) <= set(now.get(name, ())):
            return f"{name}: {before[name]!r:.60}, now {now.get(name)!r:.60}"
    trained = {method for method, count in before["seeds"].items() if count}
    old, new = (dict(_leaves(_decisive(held, trained))) for held in (before, now))
    for name in sorted({*old, *new}):
        if old.get(name, _ABSENT) != new.get(name, _ABSENT):
            return f"{name}: {old.get(name, _ABSENT)!r:.60}, now {new.get(name, _ABSENT)!r:.60}"
    return ""


def _decisive(held: dict[str, Any], trained: set[str]) -> dict[str, Any]:
    """Return what decides the numbers of some methods, apart from how many runs there are."""
    found = {k: v for k, v in held.items() if k not in (*_WORDS, "seeds", "dropped", "drops")}
    for name in _BY_METHOD:
        table = held.get(name, {})
        own = table.items() if isinstance(table, dict) else ()
        found[name] = {method: value for method, value in own if method in trained}
    return found


def _leaves(table: dict[str, Any], place: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{place}{key}.")
        else:
            yield f"{place}{key}", value
