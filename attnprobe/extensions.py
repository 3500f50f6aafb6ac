"""A user's own formats and readers, from Python files that they name.

Such a file exports `FORMAT` (or `FORMATS`) and `READER` (or `READERS`). It is ordinary code
and runs when it is loaded: only what the command line or a call names is ever loaded.
"""

import hashlib
import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from attnprobe.errors import AttnprobeError
from attnprobe.formats import Format

if TYPE_CHECKING:
    from attnprobe.attention import Reader

_EXPORTS = ("FORMAT", "FORMATS", "READER", "READERS")


@dataclass(frozen=True)
class Extensions:
    """What the user's own files add.

    Attributes:
        formats: Checkpoint formats, asked before the known ones.
        readers: Attention readers, asked before the known ones.
    """

    formats: tuple[Format, ...] = ()
    readers: "tuple[Reader, ...]" = ()


def load(paths: Iterable[Path]) -> Extensions:
    """Run the files and return what they export.

    Raises:
        AttnprobeError: A file cannot be run, exports nothing, or exports something else.
    """
    formats: list[Format] = []
    readers: list[Any] = []
    for path in paths:
        module = _module(path)
        found = [name for name in _EXPORTS if hasattr(module, name)]
        if not found:
            raise AttnprobeError(
                f"{path} exports none of {', '.join(_EXPORTS)}",
                "assign the Format to FORMAT or the Reader to READER, at the top level",
            )
        formats += _exported(path, module, "FORMAT", Format)
        if "READER" in found or "READERS" in found:
            from attnprobe.attention import Reader  # only readers need torch

            readers += _exported(path, module, "READER", Reader)
    return Extensions(tuple(formats), tuple(readers))


def _module(path: Path) -> ModuleType:
    text = str(path.resolve())
    name = f"attnprobe_plugin_{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise AttnprobeError(f"{path} is not a Python file", "give a file that ends in .py")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # it is the user's code; say where it failed
        raise AttnprobeError(
            f"{path} failed with {type(error).__name__}: {error}", "run it with Python to see where"
        ) from error
    return module


def _exported(path: Path, module: ModuleType, name: str, kind: type) -> list[Any]:
    one, many = getattr(module, name, None), getattr(module, f"{name}S", ())
    found = [*([one] if one is not None else []), *many]
    wrong = next((item for item in found if not isinstance(item, kind)), None)
    if wrong is not None:
        raise AttnprobeError(
            f"{path}: {name} must be an attnprobe {kind.__name__}, not {type(wrong).__name__}",
            f"make it with {kind.__module__}.{kind.__name__}(...)",
        )
    return found
