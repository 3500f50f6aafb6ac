"""State dicts of several releases in which tensors are lost, reshaped, renamed or retyped."""

import re
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch

from attnprobe.checkpoints.reading import weightfiles

OFFICIAL = Path(__file__).resolve().parent / "official"
DTYPES = (torch.float16, torch.float64, torch.int64, torch.bool, torch.complex64, torch.int8)
SIDES = (0, 1, 2, 3, 7, 64, 1000)


def reshaped(tensors, name, rng):
    shape = [rng.choice(SIDES) for _ in range(rng.randrange(6))]
    while torch.Size(shape).numel() > 10**6:
        shape[shape.index(max(shape))] = 1
    return tensors | {name: torch.zeros(shape)}


def one_side(tensors, name, rng):
    shape = list(tensors[name].shape)
    if shape:
        shape[rng.randrange(len(shape))] = rng.choice(SIDES)
    return tensors | {name: torch.zeros(shape)}


def transposed(tensors, name, rng):
    return tensors | {name: tensors[name].transpose(0, -1) if tensors[name].ndim else tensors[name]}


def lost(tensors, name, rng):
    return {key: value for key, value in tensors.items() if key != name}


def lost_suffix(tensors, name, rng):
    end = name.rpartition(".")[2]
    return {key: value for key, value in tensors.items() if not key.endswith(end)}


def lost_block(tensors, name, rng):
    start = name.rpartition(".")[0].rpartition(".")[0]
    return {key: value for key, value in tensors.items() if not key.startswith(start)}


def renamed(tensors, name, rng):
    new = rng.choice(
        (f"{name}x", f"x.{name}", name.upper(), f"module.{name}", name[1:], f"{name}.")
    )
    return {new if key == name else key: value for key, value in tensors.items()}


def renumbered(tensors, name, rng):
    new = re.sub(r"\d+", lambda _: str(rng.choice((0, 1, 2, 9, 99, 10**7, 10**30))), name)
    return tensors | {new: tensors[name]}


def retyped(tensors, name, rng):
    return tensors | {name: tensors[name].to(rng.choice(DTYPES))}


def all_retyped(tensors, name, rng):
    kind = rng.choice(DTYPES)
    return {key: value.to(kind) for key, value in tensors.items()}


def valued(tensors, name, rng):
    value = rng.choice((float("nan"), float("inf"), -1e38, 1e-45))
    kind = tensors[name].is_floating_point()
    return tensors | {name: torch.full(tensors[name].shape, value if kind else -1)}


def expanded(tensors, name, rng):
    shape = tensors[name].shape
    return tensors | {name: torch.zeros(()).expand(rng.choice((shape, (500, *shape))))}


def taken(tensors, name, rng):
    """Give a tensor the name of another."""
    other = rng.choice(list(tensors))
    return tensors | {other: tensors[name]}


def foreign(tensors, name, rng):
    """Add the tensors of another release."""
    return tensors | flat(rng.choice(releases()))


def nested(tensors, name, rng):
    start = name.partition(".")[0]
    inner = {key[len(start) + 1 :]: v for key, v in tensors.items() if key.startswith(start + ".")}
    return {key: v for key, v in tensors.items() if not key.startswith(start + ".")} | {
        start: inner
    }


def no_tensor(tensors, name, rng):
    return tensors | {name: rng.choice((None, 1, "text", [], {}, [tensors[name]], {"": {}}))}


MUTATORS: tuple[Callable[..., Any], ...] = (
    *(reshaped, one_side, transposed, lost, lost_suffix, lost_block, renamed, renumbered),
    *(retyped, all_retyped, valued, expanded, taken, foreign, nested, no_tensor),
)


@cache
def releases():
    return sorted(path.stem for path in OFFICIAL.glob("*.pth"))


@cache
def flat(release):
    """Return the tensors of a release's file, without what wraps them."""
    content = weightfiles.read(OFFICIAL / f"{release}.pth").content
    while not any(isinstance(value, torch.Tensor) for value in content.values()):
        content = max((v for v in content.values() if isinstance(v, dict)), key=len)
    return {key: value.clone() for key, value in content.items() if hasattr(value, "clone")}


def mutated(release, mutator, rng):
    tensors = flat(release)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        names = [name for name, value in tensors.items() if isinstance(value, torch.Tensor)]
        if names:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what is lost when types are changed
                tensors = mutator(tensors, rng.choice(names), rng)
    return tensors
