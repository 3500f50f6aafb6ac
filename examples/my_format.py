"""A checkpoint format and an attention reader of one's own, in one file.

    attnprobe doctor --model mine.pth --plugin examples/my_format.py
    attnprobe analyze mine.pth --plugin examples/my_format.py

The release that is read here calls its tokens' projections `in_proj` and its blocks `stages`,
and its attention writes the softmax out. Everything else about it is a plain ViT in timm's
names, so a table of renamed names is the whole format; `build` makes the module.
"""

from collections.abc import Mapping
from typing import Any

import timm
from torch import Tensor, nn
from torch.nn import functional as F

import attnprobe
from attnprobe.attention import RawAttention
from attnprobe.attention.reader import Call
from attnprobe.formats.signs import has

HEADS = 2


class PlainAttention(nn.Module):
    """Attention that forms its probabilities itself."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (dim // heads) ** -0.5
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor, **_: object) -> Tensor:
        """Attend; x is [images, tokens, channels]."""
        parts = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k, v = parts.unbind(0)  # [images, heads, tokens, dim]
        weights = F.softmax(q @ k.mT * self.scale, dim=-1)
        return self.proj((weights @ v).transpose(1, 2).flatten(2))


def build(tensors: Mapping[str, Tensor], stated: Mapping[str, Any]) -> nn.Module:
    """Make the module that holds the weights; timm's ViT with our attention."""
    del stated
    width, channels, patch, _ = tensors["patch_embed.proj.weight"].shape
    side = int((tensors["pos_embed"].shape[1] - 1) ** 0.5)
    model = timm.models.vision_transformer.VisionTransformer(
        img_size=side * patch,
        patch_size=patch,
        in_chans=channels,
        embed_dim=width,
        depth=1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("blocks.")),
        num_heads=HEADS,
        num_classes=0,
    )
    for block in model.blocks:
        block.attn = PlainAttention(width, HEADS)
    return model


FORMAT = attnprobe.Format(
    name="mine",
    description="the release of examples/my_format.py",
    family="vit",
    detect=has(r"^stages\.\d+\.attn\.in_proj\.weight$"),
    objective="supervised",
    rename=((r"^stages\.", "blocks."), (r"\.in_proj\.", ".qkv.")),
    build=build,
)


def read(module: nn.Module, call: Call, inputs: tuple[tuple, dict[str, Any]]) -> RawAttention:
    """Queries and keys once more from the module's input; the call was only watched."""
    del call
    x = inputs[0][0]
    q, k, _ = module.qkv(x).unflatten(-1, (3, module.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
    return RawAttention(q, k, module.scale, None)


READER = attnprobe.Reader(
    name="mine",
    matches=lambda module: type(module).__name__ == "PlainAttention",
    watch=lambda module, func, args, kwargs: func is F.softmax,
    read=read,
)
