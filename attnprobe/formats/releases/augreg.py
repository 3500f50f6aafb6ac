"""JAX names and layouts of AugReg checkpoints: kernels are stored input-first.

Query, key and value kernels [width, heads, dim] become one matrix [3 * heads * dim, width].
"""

import re
from typing import TYPE_CHECKING, Any

from attnprobe.formats.containers import Weights
from attnprobe.formats.records import INCEPTION, Format
from attnprobe.formats.signs import anywhere, either, every, has

if TYPE_CHECKING:
    from torch import Tensor

_ATTENTION = re.compile(r"^(Transformer/encoderblock_\d+/MultiHeadDotProductAttention_\d+)/query/")
_NAMES = (
    (r"^Transformer/encoderblock_(\d+)/", r"blocks.\1."),
    (r"MultiHeadDotProductAttention_\d+/out/", "attn.proj."),
    (r"MlpBlock_\d+/Dense_0/", "mlp.fc1."),
    (r"MlpBlock_\d+/Dense_1/", "mlp.fc2."),
    (r"LayerNorm_0/", "norm1."),
    (r"LayerNorm_[12]/", "norm2."),
    (r"^Transformer/encoder_norm/", "norm."),
    (r"^Transformer/posembed_input/pos_embedding$", "pos_embed"),
    (r"^pos_embedding$", "pos_embed"),
    (r"^embedding/", "patch_embed.proj."),
    (r"^pre_logits/", "pre_logits."),
    (r"^head/", "head."),
    (r"^cls$", "cls_token"),
    (r"(kernel|scale)$", "weight"),
)
_TARGETS = {"query": 0, "key": 1, "value": 2}


def _prepare(tensors: "dict[str, Tensor]") -> "tuple[dict[str, Tensor], dict[str, str]]":
    """Rename to timm's names and transpose kernels to output-first."""
    tensors, stacked = _unstacked(tensors)
    out: dict[str, Tensor] = {}
    origin: dict[str, str] = {}
    for name, tensor in tensors.items():
        if "/query/" in name or "/key/" in name or "/value/" in name:
            continue
        new = _timm_name(name)
        out[new], origin[new] = _transposed(new, tensor), name
    for base in {match[1] for name in tensors if (match := _ATTENTION.match(name))}:
        new = _timm_name(base + "/out/")[: -len("proj.")]
        for kind in ("kernel", "bias"):
            parts = [tensors.get(f"{base}/{part}/{kind}") for part in _TARGETS]
            if all(part is not None for part in parts):
                target = f"{new}qkv.{'weight' if kind == 'kernel' else 'bias'}"
                out[target] = _merged([part for part in parts if part is not None], kind)
                origin[target] = f"{base}/{{query,key,value}}/{kind}"
    return out, {new: stacked.get(old, old) for new, old in origin.items()}


def _unstacked(tensors: "dict[str, Tensor]") -> "tuple[dict[str, Tensor], dict[str, str]]":
    """Part blocks that were scanned over: one array of each kind, layers first."""
    scanned = "Transformer/encoderblock/"
    out: dict[str, Tensor] = {}
    origin: dict[str, str] = {}
    for name, tensor in tensors.items():
        if not name.startswith(scanned):
            out[name] = tensor
            continue
        for i, layer in enumerate(tensor):
            new = f"{scanned[:-1]}_{i}/{name[len(scanned) :]}"
            out[new], origin[new] = layer, f"{name}[{i}]"
    return out, origin


def _customs(weights: Weights) -> dict[str, Any]:
    """The query kernels [width, heads, dim] state the head count."""
    for name, tensor in weights.tensors.items():
        if name.endswith("/query/kernel") and name.startswith("Transformer/"):
            return {"heads": int(tensor.shape[-2])} if tensor.ndim >= 3 else {}
    return {}


def _timm_name(name: str) -> str:
    for pattern, replacement in _NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def _transposed(name: str, tensor: "Tensor") -> "Tensor":
    if name == "patch_embed.proj.weight" and tensor.ndim == 4:
        return tensor.permute(3, 2, 0, 1)  # [width, channels, rows, cols]
    if name.endswith("attn.proj.weight") and tensor.ndim == 3:
        return tensor.flatten(0, 1).t()  # [width, heads * dim]
    if name.endswith("weight") and tensor.ndim == 2:
        return tensor.t()
    return tensor


def _merged(parts: "list[Tensor]", kind: str) -> "Tensor":
    import torch  # the list of formats must not cost an import of torch

    if kind == "kernel":
        return torch.cat([part.flatten(1).t() for part in parts])  # [3 * heads * dim, width]
    return torch.cat([part.flatten() for part in parts])


def _customs_big_vision(weights: Weights) -> dict[str, Any]:
    usual = {(1152, 27): 16, (1536, 40): 16}
    return {**_customs(weights), "act": "gelu_tanh", "usual_heads": usual}


_MAP = ((r"^MAPHead_0/", "attention pooling after the encoder"),)
_BIG_VISION = has(r"^Transformer/encoderblock(_\d+)?/MlpBlock_0/")

FORMATS = (
    Format(
        "big-vision-siglip",
        "big_vision's SigLIP (.npz; text and pooling dropped)",
        "vit",
        every(_BIG_VISION, either(anywhere(r"(^|/)txt/"), has(r"^MAPHead_0/"))),
        rank=8,
        objective="language-image",
        drop=_MAP,
        prepare=_prepare,
        customs=_customs_big_vision,
        normalisation=INCEPTION,
    ),
    Format(
        "big-vision",
        "big_vision's vision transformers (.npz)",
        "vit",
        _BIG_VISION,
        rank=9,
        prepare=_prepare,
        customs=_customs_big_vision,
        normalisation=INCEPTION,
    ),
    Format(
        "augreg",
        "AugReg and other JAX vision transformers (.npz)",
        "vit",
        has(r"Transformer/encoderblock_?\d*"),
        rank=10,
        prepare=_prepare,
        customs=_customs,
        normalisation=INCEPTION,
    ),
)
