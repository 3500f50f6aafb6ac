"""attnprobe train: train a classifier with labels, from scratch or from a checkpoint."""

from attnprobe.cli import _objectives

HELP = """Train with labels: from scratch, or fine-tune with --init CKPT.

\b
attnprobe train supervised --data photos/ --val held-out/ --recipe supervised_vit_mini_32
attnprobe train supervised --data DIR --init runs/simmim/checkpoint.safetensors \\
    --layer-decay 0.65

A folder of images has one sub-folder a class. Recipes: `attnprobe list recipes`.
"""

command = _objectives.Objectives(labelled=True, name="train", help=HELP)
