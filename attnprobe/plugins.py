"""Find what a folder holds by its file names: the one extension mechanism.

A metric, plot or objective is a file in its package that exports one constant. The file
name is the public name; nothing is registered and nothing runs on import of the package.
"""

import pkgutil
from importlib import import_module
from typing import Any

from attnprobe.errors import AttnprobeError


def names(package: str) -> tuple[str, ...]:
    """Public module names in a package, sorted, without importing them.

    >>> "distance" in names("attnprobe.metrics")
    True
    """
    path = import_module(package).__path__
    return tuple(
        sorted(info.name for info in pkgutil.iter_modules(path) if not info.name.startswith("_"))
    )


def load(package: str, name: str, constant: str) -> Any:
    """Import `package.name` and return its `constant`.

    Raises:
        AttnprobeError: No file of that name is in the package.
    """
    known = names(package)
    if name not in known:
        raise AttnprobeError(
            f"unknown {constant.lower()} {name!r}", f"choose one of: {', '.join(known)}"
        )
    return getattr(import_module(f"{package}.{name}"), constant)
