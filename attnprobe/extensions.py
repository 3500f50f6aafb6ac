"""A user's own formats, readers and metrics, from Python files that they name.

Such a file exports `FORMAT`, `READER` or `METRIC` (or, of several, `FORMATS`, `READERS`,
`METRICS`). It is ordinary code and runs when it is loaded: only what the command line or a call
names is ever loaded.
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
    from attnprobe.metrics import Metric

_EXPORTS = ("FORMAT", "FORMATS", "READER", "READERS", "METRIC", "METRICS")


@dataclass(frozen=True)
class Extensions:
    """What the user's own files add.

    Attributes:
        formats: Checkpoint formats, asked before the known ones.
        readers: Attention readers, asked before the known ones.
        metrics: Metrics, measured where they are named.
        sha256: Hashes of the files, in the order given.
    """

    formats: tuple[Format, ...] = ()
    readers: "tuple[Reader, ...]" = ()
    metrics: "tuple[Metric, ...]" = ()
    sha256: tuple[str, ...] = ()

    @property
    def identity(self) -> dict[str, Any]:
        """Which code ran, as plain values; nothing without any."""
        return {"plugins": list(self.sha256)} if self.sha256 else {}


def load(paths: Iterable[Path]) -> Extensions:
    """Run the files and return what they export.

    Raises:
        AttnprobeError: A file cannot be run, exports nothing, or exports something else; or a
            metric cannot be measured.
    """
    formats: list[Format] = []
    readers: list[Any] = []
    metrics: list[Any] = []
    sha256: list[str] = []
    for path in paths:
        module = _module(path)
        sha256.append(hashlib.sha256(path.read_bytes()).hexdigest())
        found = [name for name in _EXPORTS if hasattr(module, name)]
        if not found:
            raise AttnprobeError(
                f"{path} exports none of {', '.join(_EXPORTS)}",
                "assign the Format to FORMAT, the Reader to READER, or the Metric to METRIC, at "
                "the top level",
            )
        formats += _exported(path, module, "FORMAT", Format)
        if "READER" in found or "READERS" in found:
            from attnprobe.attention import Reader  # only readers need torch

            readers += _exported(path, module, "READER", Reader)
        if "METRIC" in found or "METRICS" in found:
            metrics += _metrics(path, module)
    _check_names(metrics)
    return Extensions(tuple(formats), tuple(readers), tuple(metrics), tuple(sha256))


def _metrics(path: Path, module: ModuleType) -> "list[Metric]":
    """Return the metrics of a file, each checked."""
    from attnprobe.metrics import Metric, _own

    found = _exported(path, module, "METRIC", Metric)
    try:
        return [_own.checked(metric) for metric in found]
    except AttnprobeError as error:
        raise AttnprobeError(f"{path}: {error.cause}", error.remedy) from error


def _check_names(metrics: "list[Metric]") -> None:
    names = [metric.name for metric in metrics]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise AttnprobeError(f"two metrics are named {twice!r}", "give one of them another name")


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
