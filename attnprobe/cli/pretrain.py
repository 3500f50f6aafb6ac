"""attnprobe pretrain: train a backbone without labels."""

from attnprobe.cli import _objectives

HELP = """Pre-train a timm ViT, Swin or Swin V2 on images, without labels.

\b
attnprobe pretrain simmim --data photos/ --recipe simmim_vit_mini_32
attnprobe pretrain simmim --resume -o runs/simmim-beit_base_patch16_224
torchrun --nproc-per-node 8 -m attnprobe pretrain mae --data DIR --recipe mae_vit_base_1600ep

A run folder holds the checkpoint (for timm and attnprobe), its model card, metrics, and a page
that shows how locality and diversity emerged. Recipes: `attnprobe list recipes`.
"""

command = _objectives.Objectives(labelled=False, name="pretrain", help=HELP)
