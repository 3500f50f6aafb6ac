"""AttentionProbe in a plain torch loop, and the page of what it saw. Ten seconds.

    python examples/probe_in_a_loop.py --out probed

A small ViT learns the direction of stripes. Every ten updates the probe measures its attention
on sixteen images that stay the same; the training goes on as if there were no probe. Each
measurement is a run folder; together they are a track, which tells what changed and how surely.
"""

import argparse
import math
from pathlib import Path

import timm
import torch
from torch import Tensor
from torch.nn import functional as F

import attnprobe

SIDE, CLASSES, UPDATES, EVERY = 32, 4, 40, 10


def stripes(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Make images [n, 3, 32, 32] of noisy stripes and the number of their direction [n]."""
    labels = torch.randint(CLASSES, (count,), generator=generator)
    angle = labels.view(-1, 1, 1) * math.pi / CLASSES
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    phase = 2 * math.pi * torch.rand(count, 1, 1, generator=generator)
    waves = torch.sin(0.8 * (x * angle.cos() + y * angle.sin()) + phase)
    noise = 0.3 * torch.randn(count, 3, SIDE, SIDE, generator=generator)
    return waves.unsqueeze(1) + noise, labels


def main() -> None:
    """Train, probe, print, write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("probed"))
    out = parser.parse_args().out

    torch.manual_seed(0)
    model = timm.create_model(
        "vit_tiny_patch16_224",
        img_size=SIDE,
        patch_size=4,
        embed_dim=64,
        depth=3,
        num_heads=2,
        num_classes=CLASSES,
    )
    generator = torch.Generator().manual_seed(0)
    probe = attnprobe.AttentionProbe(model, stripes(16, generator)[0], out=out, every=EVERY)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    probe(0)
    for step in range(1, UPDATES + 1):
        images, labels = stripes(32, generator)
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if probe(step):
            print(f"update {step}: loss {loss.item():.3f}")

    found = attnprobe.track([attnprobe.Result.load(path) for path in sorted(out.glob("step-*"))])
    columns = ["metric", "layer", "value_first", "value_last", "change", "low", "high"]
    print(found.tables["changes"][columns].to_string(index=False))
    print(f"wrote {out} and {attnprobe.report(found, out.with_suffix('.html'))}")


if __name__ == "__main__":
    main()
