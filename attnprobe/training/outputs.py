"""What a run leaves: the encoder under timm's names, the rest of the objective, a model card.

`checkpoint.safetensors` loads into `timm.create_model(..., checkpoint_path=)` and into
attnprobe; `objective.safetensors` holds decoder, mask token, predictor and momentum encoder,
which `attnprobe export` needs. Every file is written under another name and renamed.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from attnprobe.errors import OutputError
from attnprobe.exports import ENCODER, REST
from attnprobe.results import MANIFEST
from attnprobe.types import CheckpointSpec

__all__ = ["CARD", "ENCODER", "MANIFEST", "REST"]
CARD = "README.md"
PREFIX = "encoder."


def put(path: Path, content: bytes) -> None:
    """Replace a file so that a reader sees the old one or the new one, never half.

    Raises:
        OutputError: It cannot be written.
    """
    staging = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        staging.write_bytes(content)
        staging.replace(path)
    except OSError as error:
        with suppress(OSError):
            staging.unlink()
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}",
            "free some disk, then repeat the command with --resume",
        ) from error


def split(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Part a module's tensors into those of its encoder and the others."""
    encoder = {k.removeprefix(PREFIX): v for k, v in state.items() if k.startswith(PREFIX)}
    return encoder, {k: v for k, v in state.items() if not k.startswith(PREFIX)}


def packed(tensors: Mapping[str, Tensor], card: Mapping[str, Any]) -> bytes:
    """Return a safetensors file with its card as metadata; tensors keep their type."""
    weights = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    # one entry: several are written in an order of their own, and the file's hash with them
    return safetensors.torch.save(weights, {"attnprobe": json.dumps(card)})


def card_of(
    spec: CheckpointSpec, heads: list[int], *, kind: str, classes: int, step: int, epoch: float
) -> dict[str, Any]:
    """Return what rebuilds and feeds the encoder, for the file's metadata."""
    return {
        "name": spec.name,
        "architecture": spec.architecture,
        "model_args": {**spec.model_args, "num_classes": classes},
        **({"heads": heads[0]} if len(set(heads)) == 1 else {}),
        "input_size": list(spec.input_size),
        "mean": list(spec.mean),
        "std": list(spec.std),
        "interpolation": spec.interpolation,
        "crop_pct": spec.crop_pct,
        "objective": kind,
        "step": step,
        "epoch": round(epoch, 4),
    }


def check_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """Return the name of a tensor with a value that is not a number, if there is one."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            return name
    return None


def model_card(manifest: Mapping[str, Any], scores: Mapping[str, float]) -> str:
    """Return the model card: what was trained, on what, how well, under which licence."""
    model, data = manifest["model"], manifest["data"]
    arguments = "".join(f", {name}={value!r}" for name, value in model["model_args"].items())
    rows = "".join(f"| {name} | {value:.4g} |\n" for name, value in sorted(scores.items()))
    table = f"| score on {data['val']} | value |\n|---|---|\n{rows}\n" if rows else ""
    less = f", without its last {model['drop_last']} block(s)" if model.get("drop_last") else ""
    start = f"- Began from: {model['init']}{less}\n" if model["init"] else ""
    front = f"---\nlicense: {manifest['licence']}\n---\n\n" if manifest["licence"] else ""
    return f"""{front}# {manifest["name"]}

{manifest["title"]}, {model["architecture"]} ({model["parameters"]:,} parameters),
{manifest["step"]} of {manifest["steps"]} updates of {manifest["batch_size"]} images
({manifest["step"] / manifest["steps_per_epoch"]:.1f} epochs), {manifest["precision"]}, \
{manifest["processes"]} process(es) on {manifest["device"]}.

- Data: {data["label"]}, {data["images"]} images, {data["classes"]} classes, sha256 of \
{data["hashed"]} `{data["sha256"]}`
{start}- Recipe: {manifest["recipe"] or "none"}; every option as used is in `config.toml`
- Weights: {manifest["weights"]}
- Licence: {manifest["licence"] or "not stated"}
- Versions: {", ".join(f"{name} {value}" for name, value in manifest["versions"].items())}

{table}`best.safetensors` holds the weights with the best {manifest["best"]}.

```python
import timm

model = timm.create_model(
    {model["architecture"]!r}, num_classes={model["classes"]}{arguments},
    checkpoint_path="checkpoint.safetensors",
)
# RGB from 0 to 1, less mean {data["mean"]}, by std {data["std"]}
```

    attnprobe analyze checkpoint.safetensors -o analysis
"""
