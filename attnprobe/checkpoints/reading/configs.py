"""Facts from the JSON files beside a checkpoint: what the weights' shapes cannot say.

`config.json` of transformers or timm, `open_clip_config.json`, and the preprocessing in
`preprocessor_config.json`. They are strangers' files: bounded, typed, and refused by name.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from attnprobe.checkpoints.reading import metadata
from attnprobe.errors import CheckpointError

LARGEST = 8 * 2**20  # the names of 21,841 classes, twice, take 2 MiB
# activations by timm's names
_ACTIVATIONS = {
    "gelu": "gelu",
    "quick_gelu": "quick_gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "silu": "silu",
    "swish": "silu",
    "relu": "relu",
}
_RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
_NAMES = {
    "num_attention_heads": "heads",
    "hidden_size": "width",
    "embed_dim": "width",
    "num_hidden_layers": "depth",
    "layer_norm_eps": "norm_eps",
    "patch_size": "patch_size",
    "window_size": "window_size",
    "pretrained_window_sizes": "pretrained_window_sizes",
}
_FIX = "correct that file, or move it away to go by the weights alone"


@dataclass(frozen=True)
class Stated:
    """What lies beside a checkpoint.

    Attributes:
        config: The config.json as it is, or empty.
        facts: What it and its neighbours state, under the names of `metadata`.
        notes: Sentences about what did not fit.
    """

    config: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


NOTHING = Stated()


def beside(path: Path) -> Stated:
    """Return what the JSON files beside a checkpoint state.

    Raises:
        CheckpointError: One is too large, no JSON, or states something absurd.
    """
    config = _known(path.parent / "config.json")
    clip = _known(path.parent / "open_clip_config.json")
    processor = _known(path.parent / "preprocessor_config.json")
    facts: dict[str, Any] = {}
    if isinstance(clip.get("model_cfg"), dict):
        config, facts = _open_clip(clip)
    elif isinstance(config.get("model_type"), str) and config["model_type"] != "timm_wrapper":
        facts = _transformers(config)
    elif isinstance(config.get("architecture"), str):
        config, facts = _timm(config)
    else:
        config = {}
    if facts or config:
        facts |= _preprocessing(processor)
    wrong = metadata.first_wrong(facts)
    if wrong:
        raise CheckpointError(f"what lies beside {path.name} (config.json) {wrong}", _FIX)
    facts = {key: value for key, value in facts.items() if value is not None}
    return Stated(config, facts, _notes(facts, processor))


def json_of(path: Path, largest: int = LARGEST) -> Any:
    """Return the content of a JSON file of bounded size, in which no key stands twice.

    Raises:
        CheckpointError: It is too large, cannot be read, or is no such JSON.
    """
    try:
        size = path.stat().st_size
        if size > largest:
            raise CheckpointError(f"{path} has {size} bytes, expected at most {largest}", _FIX)
        return json.loads(path.read_bytes(), object_pairs_hook=_once)
    except (OSError, ValueError, RecursionError) as error:
        told = str(error)[:200] or type(error).__name__
        raise CheckpointError(f"{path} is no readable JSON ({told})", _FIX) from error


def contradiction(facts: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Return in words where the stated width or patch is not that of the weights, or ''."""
    shape = shapes.get("patch_embed.proj.weight", ())
    if len(shape) != 4:
        return ""
    found = {"width": shape[0], "patch_size": shape[-1]}
    for key, value in found.items():
        if facts.get(key, value) != value:
            return f"config.json states {key} {facts[key]}, the weights have {value}"
    return ""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _known(path: Path) -> dict[str, Any]:
    content = json_of(path) if path.is_file() else {}
    return content if isinstance(content, dict) else {}


def _transformers(config: dict[str, Any]) -> dict[str, Any]:
    inner = config.get("vision_config") or config.get("encoder") or config
    if not isinstance(inner, dict):
        inner = config
    facts = {new: inner[old] for old, new in _NAMES.items() if old in inner}
    if isinstance(inner.get("depths"), list):  # Swin: hidden_size is the last stage's width
        facts = {key: facts[key] for key in facts if key not in ("heads", "depth")}
        facts["width"] = inner.get("embed_dim")
    if isinstance(inner.get("num_attention_heads"), list):
        del facts["heads"]
    facts["input_size"] = _input_size(inner.get("num_channels", 3), inner.get("image_size"))
    if not inner.get("use_swiglu_ffn") and "hidden_act" in inner:
        facts["act"] = _activation(inner["hidden_act"])
    facts["patch_size"] = _side(inner.get("patch_size"))
    return facts


def _activation(name: Any) -> str:
    if not isinstance(name, str) or name not in _ACTIVATIONS:
        known = ", ".join(sorted(_ACTIVATIONS))
        raise CheckpointError(
            f"config.json has hidden_act = {str(name)[:60]!r}, of which timm has none (known: "
            f"{known})",
            _FIX,
        )
    return _ACTIVATIONS[name]


def _input_size(channels: Any, size: Any) -> list[Any] | None:
    if size is None:
        return None
    sides = size if isinstance(size, list) and len(size) == 2 else [size, size]
    return [channels, *sides]


def _side(value: Any) -> Any:
    square = isinstance(value, list) and len(value) == 2 and value[0] == value[1]
    return value[0] if square else None if isinstance(value, list) else value


def _timm(config: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Timm's own: older ones keep the preprocessing beside the architecture."""
    inner = config.get("pretrained_cfg", config)
    inner = inner if isinstance(inner, dict) else {}
    names = ("mean", "std", "input_size", "interpolation", "crop_pct")
    facts = {name: inner[name] for name in names if name in inner}
    facts["model_args"] = config.get("model_args")
    return {**config, "pretrained_cfg": inner}, facts


def _open_clip(content: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    model, images = content["model_cfg"], content.get("preprocess_cfg")
    tower = model.get("vision_cfg")
    tower = tower if isinstance(tower, dict) else {}
    images = images if isinstance(images, dict) else {}
    names = ("mean", "std", "interpolation")
    facts = {name: images[name] for name in names if name in images}
    facts["input_size"] = _input_size(3, images.get("size", tower.get("image_size")))
    name = tower.get("timm_model_name")
    if isinstance(name, str):
        return {"architecture": name, "pretrained_cfg": {}}, facts
    width: Any = tower.get("width")
    head: Any = tower.get("head_width", 64)
    whole = type(width) is int and type(head) is int and head > 0
    facts |= {
        "width": width,
        "patch_size": tower.get("patch_size"),
        "act": "quick_gelu" if model.get("quick_gelu") else "gelu",
        "heads": width // head if whole else None,
    }
    return {"model_type": "open_clip", **content}, facts


def _preprocessing(content: dict[str, Any]) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    if content.get("do_normalize") is False:
        facts |= {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}
    else:
        facts |= {name: content[f"image_{name}"] for name in ("mean", "std")
                  if f"image_{name}" in content}  # fmt: skip
    resample = content.get("resample")
    if isinstance(resample, int) and resample in _RESAMPLING:
        facts["interpolation"] = _RESAMPLING[resample]
    if content:
        facts["crop_pct"] = _crop(content)
    return facts


def _crop(content: dict[str, Any]) -> float | None:
    """Return which share of the resized short side is cropped, if that can be told."""
    whole, crop = _shortest(content.get("size")), _shortest(content.get("crop_size"))
    if content.get("do_center_crop") is not True:
        return 1.0 if whole else None
    return crop / whole if crop and whole and crop <= whole else None


def _shortest(size: Any) -> int | None:
    if isinstance(size, dict):
        sides = [size[key] for key in ("shortest_edge", "height", "width") if key in size]
        size = min((side for side in sides if type(side) is int), default=None)
    return size if type(size) is int and size > 0 else None


def _notes(facts: Mapping[str, Any], processor: dict[str, Any]) -> tuple[str, ...]:
    size = facts.get("input_size")
    cut = _shortest(processor.get("crop_size")) if processor.get("do_center_crop") else None
    side = cut or _shortest(processor.get("size"))
    if not size or side is None or side == min(size[1:]):
        return ()
    return (
        f"preprocessor_config.json makes images of {side} px, the positions are for "
        f"{min(size[1:])}: --img-size {side} resamples them",
    )
