"""What releases of one library share: queries, keys and values apart, an eps of its own."""

import re
from typing import TYPE_CHECKING

from attnprobe.errors import PartialLoadError
from attnprobe.formats.containers import Weights

if TYPE_CHECKING:
    from torch import Tensor

_QUERY = re.compile(r"^(.*\.)(query|q_proj)\.(weight|bias)$")
_OTHERS = {"query": ("query", "key", "value"), "q_proj": ("q_proj", "k_proj", "v_proj")}


def merge_qkv(
    tensors: "dict[str, Tensor]",
) -> "tuple[dict[str, Tensor], dict[str, str]]":
    """Return tensors with `qkv` where query, key and value were, and the old names of each.

    A bias without its key's stays as it is: BEiT's keys have none, and timm's neither.

    Raises:
        PartialLoadError: The three differ in shape.
    """
    origin = {name: name for name in tensors}
    out = dict(tensors)
    for name in tensors:
        match = _QUERY.match(name)
        if match is None:
            continue
        old = [f"{match[1]}{part}.{match[3]}" for part in _OTHERS[match[2]]]
        if all(part in tensors for part in old):
            new = f"{match[1]}qkv.{match[3]}"
            out[new] = _joined(tensors, old)
            origin[new] = " + ".join(old)
            for part in old:
                del out[part], origin[part]
    return out, origin


# what a plain encoder's parts are called in the library, and in timm
LAYERS = (
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^encoder\.layer\.(\d+)\.", r"blocks.\1."),
    (r"\.attention\.attention\.qkv\.", ".attn.qkv."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"^(blocks\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
    (r"^layernorm\.", "norm."),
)


def eps_of(weights: Weights, eps: float) -> dict[str, object]:
    """Return customs for a library's LayerNorm eps, said where no config.json states it."""
    said = f"LayerNorm eps {eps:g}: the library's custom, no config.json beside the file"
    return {"norm_eps": eps, "said": () if weights.config else (said,)}


def _joined(tensors: "dict[str, Tensor]", names: list[str]) -> "Tensor":
    import torch  # the list of formats must not cost an import of torch

    parts = [tensors[name] for name in names]
    if len({(part.shape, part.dtype, part.layout) for part in parts}) != 1:
        shapes = ", ".join(
            f"{name} {list(part.shape)}" for name, part in zip(names, parts, strict=True)
        )
        raise PartialLoadError(
            f"query, key and value differ in shape or type: {shapes}",
            "the file was edited or pruned: get it again",
        )
    if parts[0].ndim == 0 or parts[0].layout != torch.strided:
        raise PartialLoadError(
            f"{names[0]} is no dense matrix or vector", "save the weights dense, before pruning"
        )
    return torch.cat(parts)
