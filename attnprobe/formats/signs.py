"""Signs by which formats are recognised: tests of an encoder's names and surroundings."""

import re
from collections.abc import Callable

from attnprobe.formats.containers import Weights

Sign = Callable[[Weights], bool]


def has(pattern: str) -> Sign:
    """A tensor of the encoder has a name that matches."""
    compiled = re.compile(pattern)
    return lambda weights: any(compiled.search(name) for name in weights.tensors)


def anywhere(pattern: str) -> Sign:
    """A tensor of the file has a name that matches, inside the encoder or outside."""
    compiled = re.compile(pattern)
    return lambda weights: any(compiled.search(name) for name in weights.names)


def beside(*keys: str) -> Sign:
    """Those keys all lie beside the tensors."""
    return lambda weights: weights.beside.issuperset(keys)


def every(*signs: Sign) -> Sign:
    """All of the signs."""
    return lambda weights: all(sign(weights) for sign in signs)


def either(*signs: Sign) -> Sign:
    """At least one of the signs."""
    return lambda weights: any(sign(weights) for sign in signs)


def no(sign: Sign) -> Sign:
    """The opposite of a sign."""
    return lambda weights: not sign(weights)


def configured(*model_types: str) -> Sign:
    """The config.json beside the file names one of those model types."""
    return lambda weights: weights.config.get("model_type") in model_types
