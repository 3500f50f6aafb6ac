"""Whether a study may go on in a folder: its runs have to be those of the folder, or more."""

from typing import Any

_WORDS = ("name", "model", "cost")  # which change no number


def change(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Say what differs so that runs of the one are no runs of the other; empty if nothing does.

    Args:
        before: What study.toml says.
        now: What is asked for. More methods, seeds and fine-tunings are no difference.

    >>> before = {"seeds": {"mae": 1}, "epochs": {"mae": 3}, "images": 8}
    >>> change(before, before | {"seeds": {"mae": 3}})
    ''
    >>> change(before, before | {"images": 16})
    'images were 8, now 16'
    """
    trained = [method for method, seeds in before["seeds"].items() if seeds]
    held: dict[str, tuple[Any, Any]] = {}
    for method in trained:
        seeds = before["seeds"][method], now["seeds"].get(method, 0)
        if seeds[0] > seeds[1]:
            held[f"seeds of {method}"] = seeds
        held[f"epochs of {method}"] = before["epochs"][method], now["epochs"].get(method)
    for name in ("dropped", "drops"):
        if not set(before.get(name, ())) <= set(now.get(name, ())):
            held[name] = before[name], now.get(name)
    rest = {*before, *now} - {*_WORDS, "seeds", "epochs", "dropped", "drops"}
    held |= {name: (before.get(name), now.get(name)) for name in sorted(rest)}
    for name, (old, new) in held.items():
        if old != new:
            return f"{name} were {old!r:.60}, now {new!r:.60}"
    return ""
