"""MoCo v3: two encoders in a file, and what was trained on from one of them."""

from attnprobe.formats.containers import Weights
from attnprobe.formats.records import Format
from attnprobe.formats.signs import anywhere, beside, every


def _fixed_positions(weights: Weights) -> bool:
    """Whether the class token's position is exactly zero, as sin-cos positions leave it."""
    place = weights.tensors.get("pos_embed")
    return place is not None and place.ndim == 3 and not bool(place[:, 0].any())


def _customs(_: Weights) -> dict[str, dict[tuple[int, int], int]]:
    return {"usual_heads": {(384, 12): 12}}  # a head of its ViT-S is 32 wide


FORMATS = (
    Format(
        "moco-v3",
        "MoCo v3 pre-training (the trained encoder, or --part momentum_encoder)",
        "vit",
        anywhere(r"base_encoder\."),
        rank=29,
        objective="contrastive",
        customs=_customs,
    ),
    Format(
        "moco-v3-finetuned",
        "MoCo v3 after pre-training: linear probing or fine-tuning",
        "vit",
        every(beside("arch", "state_dict"), _fixed_positions),
        rank=30,
        customs=_customs,
    ),
)
