"""One file for each code that has attention of its own kind: it exports VARIANTS."""

from functools import cache

from torch import nn

from attnprobe import plugins
from attnprobe.attention.reader import kind_of
from attnprobe.attention.variant import Variant


def variant_of(module: nn.Module) -> Variant | None:
    """Return what is known of a module's class, or None."""
    return _known().get(kind_of(module))


@cache
def _known() -> dict[str, Variant]:
    package = __name__
    files = (plugins.load(package, name, "VARIANTS") for name in plugins.names(package))
    return {variant.kind: variant for variants in files for variant in variants}
