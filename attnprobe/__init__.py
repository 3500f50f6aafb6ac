"""attnprobe: measure what pre-trained vision transformers look at.

    model = attnprobe.load("ckpt.pth")
    result = attnprobe.analyze(model, "images/")
    result.tables["distance"]

Public names are resolved on first use, so that importing attnprobe costs nothing.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attnprobe.analysis import analyze
    from attnprobe.attention import Reader
    from attnprobe.capture import capture
    from attnprobe.checkpoints import LoadedModel, load
    from attnprobe.comparison import Comparison, compare
    from attnprobe.errors import AttnprobeError
    from attnprobe.formats import Format
    from attnprobe.probing import AttentionProbe
    from attnprobe.report import report
    from attnprobe.results import Result
    from attnprobe.settings import AnalysisConfig
    from attnprobe.tracking import Track, track
    from attnprobe.types import MetricOptions

_HOMES = {
    "AnalysisConfig": "settings",
    "AttentionProbe": "probing",
    "AttnprobeError": "errors",
    "Comparison": "comparison",
    "Format": "formats",
    "LoadedModel": "checkpoints",
    "MetricOptions": "types",
    "Reader": "attention",
    "Result": "results",
    "Track": "tracking",
    "analyze": "analysis",
    "capture": "capture",
    "compare": "comparison",
    "load": "checkpoints",
    "report": "report",
    "track": "tracking",
}

__all__ = [
    "AnalysisConfig",
    "AttentionProbe",
    "AttnprobeError",
    "Comparison",
    "Format",
    "LoadedModel",
    "MetricOptions",
    "Reader",
    "Result",
    "Track",
    "analyze",
    "capture",
    "compare",
    "load",
    "report",
    "track",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'attnprobe' has no attribute {name!r}")
    return getattr(import_module(f"attnprobe.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)


class _Package(ModuleType):
    """Keeps `attnprobe.capture` and `attnprobe.report` the functions once their files load."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _HOMES and isinstance(value, ModuleType):
            return
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
