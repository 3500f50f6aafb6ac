"""MaskFeat's ViT in the names of PySlowFast: a multiscale transformer of one scale."""

from typing import Any

from attnprobe.formats.containers import Weights
from attnprobe.formats.records import Format
from attnprobe.formats.signs import anywhere, beside, either, every, has

_VIT = has(r"^blocks\.\d+\.attn\.qkv\.weight$")


def _customs(weights: Weights) -> dict[str, Any]:
    # pre-training goes without a norm after the last block
    return {"final_norm": "norm.weight" in weights.tensors}


FORMATS = (
    Format(
        "maskfeat",
        "MaskFeat of ViT, pre-training (prediction head dropped)",
        "vit",
        every(_VIT, anywhere(r"(^|\.)pred_head\.(transforms|projections)\.")),
        rank=28,
        objective="mim",
        drop=(
            (r"^pred_head\.", "head of the pre-training task"),
            (r"^hogs\.", "buffers of the histograms that are predicted"),
        ),
        customs=_customs,
    ),
    Format(
        "maskfeat-finetuned",
        "MaskFeat of ViT, fine-tuned in PySlowFast",
        "vit",
        every(_VIT, either(beside("model_state", "cfg"), has(r"^head\.projection\.weight$"))),
        rank=29,
        rename=((r"^head\.projection\.", "head."),),
    ),
)
