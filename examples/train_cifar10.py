"""Train a small vision transformer on CIFAR-10 with labels: the supervised sample checkpoint.

    python examples/train_cifar10.py --data cifar10_train.npz cifar10_test.npz --epochs 20

Each of the two is an `.npz` of JPEG files (`jpeg`, `offset`, `label`, `classes`) or a folder
with one sub-folder a class. The learning rate follows the larger of the finished share of the
epochs and of `--limit-minutes`, so the cosine always ends; without a limit a run is
reproducible from its seed. Run the same command again to resume after the last whole epoch.
"""

import argparse
import io
import json
import os
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import safetensors.torch
import timm
import torch
from PIL import Image
from timm.layers import set_fused_attn
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from torch import Tensor, nn
from torchvision.datasets import ImageFolder

ARCHITECTURE = "vit_tiny_patch16_224"
SIDE, PATCH, HEADS = 32, 4, 3
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
TICKS = 1000  # resolution of the schedule, which runs on progress rather than on steps


def read(source: Path) -> tuple[Tensor, Tensor, list[str]]:
    """Decode a whole set once: uint8 [n, 3, 32, 32], labels [n], class names."""
    if source.is_dir():
        folder = ImageFolder(str(source))
        files, labels, classes = (
            [path for path, _ in folder.samples],
            folder.targets,
            folder.classes,
        )
    else:
        with np.load(source) as held:
            data, edges = held["jpeg"].tobytes(), held["offset"].tolist()
            labels, classes = held["label"].astype(np.int64), held["classes"].tolist()
        files = [io.BytesIO(data[a:b]) for a, b in pairwise(edges)]
    pixels = np.empty((len(files), SIDE, SIDE, 3), dtype=np.uint8)
    for row, file in zip(pixels, files, strict=True):
        with Image.open(file) as image:
            fitted = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            row[:] = np.asarray(fitted)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), torch.tensor(labels), classes


def normalise(pixels: Tensor) -> Tensor:
    """Bytes to the model's input."""
    mean, std = (torch.tensor(v, device=pixels.device).view(1, 3, 1, 1) for v in (MEAN, STD))
    return (pixels.float() / 255 - mean) / std


def augment(pixels: Tensor, *, border: int = 4) -> Tensor:
    """Shift each image by up to `border` pixels (zeros enter) and mirror half of them."""
    n, _, h, w = pixels.shape
    padded = nn.functional.pad(pixels, (border,) * 4)
    top, left = torch.randint(0, 2 * border + 1, (2, n, 1))
    cols = left + torch.arange(w)  # [n, w]
    cols = torch.where(torch.rand(n, 1) < 0.5, cols.flip(1), cols)
    rows = top + torch.arange(h)  # [n, h]
    image = torch.arange(n).view(n, 1, 1)
    return padded[image, :, rows[:, :, None], cols[:, None, :]].permute(0, 3, 1, 2)


def batches(x: Tensor, y: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Shuffled, augmented, full batches of one epoch."""
    for index in torch.randperm(len(x)).split(size)[: len(x) // size]:
        yield normalise(augment(x[index])), y[index]


@torch.inference_mode()
def accuracy(model: nn.Module, x: Tensor, y: Tensor, device: str) -> float:
    """Top-1 of the model in evaluation mode."""
    model.eval()
    hits = [
        (model(normalise(a.to(device))).argmax(1).cpu() == b).sum()
        for a, b in zip(x.split(500), y.split(500), strict=True)
    ]
    return float(sum(hits)) / len(y)


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file so that a reader sees the old or the new one, never half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(f".{path.name}.part")
    staging.write_bytes(content)
    staging.replace(path)


def export(model: nn.Module, path: Path, classes: int) -> None:
    """Write the weights in half precision with what is needed to rebuild and feed the model."""
    card = {
        "name": path.stem,
        "architecture": ARCHITECTURE,
        "model_args": {"img_size": SIDE, "patch_size": PATCH, "num_classes": classes},
        "heads": HEADS,
        "input_size": [3, SIDE, SIDE],
        "mean": MEAN,
        "std": STD,
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "objective": "supervised",
    }
    weights = {k: v.detach().cpu().half().contiguous() for k, v in model.state_dict().items()}
    metadata = {"format": "pt", "attnprobe": json.dumps(card)}
    write_atomically(path, safetensors.torch.save(weights, metadata=metadata))


class Run:
    """One training run: model, optimiser, schedule, and what a resume needs."""

    def __init__(self, options: argparse.Namespace, classes: int) -> None:
        set_fused_attn(options.device != "cpu")  # with 65 keys the fused CPU backward is slower
        torch.manual_seed(options.seed)
        self.options, self.epoch, self.seconds = options, 0, 0.0
        self.model = timm.create_model(
            ARCHITECTURE,
            img_size=SIDE,
            patch_size=PATCH,
            num_classes=classes,
            patch_drop_rate=options.patch_drop,
        ).to(options.device)
        self.optimizer = create_optimizer_v2(
            self.model, opt="adamw", lr=options.lr, weight_decay=0.05
        )
        self.schedule = CosineLRScheduler(
            self.optimizer,
            t_initial=TICKS,
            lr_min=options.lr / 100,
            warmup_t=TICKS // 20,
            warmup_lr_init=options.lr / 100,
            warmup_prefix=True,
            t_in_epochs=False,
        )
        self.state = options.work / "state.pt"
        if self.state.exists():
            held = torch.load(self.state, weights_only=True, map_location=options.device)
            self.model.load_state_dict(held["model"])
            self.optimizer.load_state_dict(held["optimizer"])
            self.epoch, self.seconds = held["epoch"], held["seconds"]

    def progress(self, share: float, seconds: float) -> float:
        """Finished share of the run, by epochs or by the clock, whichever is ahead."""
        clock = seconds / (60 * self.options.limit_minutes) if self.options.limit_minutes else 0.0
        return max((self.epoch + share) / self.options.epochs, clock)

    def train_epoch(self, x: Tensor, y: Tensor) -> dict[str, float]:
        """One pass over the images, cut short when the time is up."""
        options, start, losses = self.options, time.perf_counter(), []
        torch.manual_seed(options.seed * 10_000 + self.epoch)  # makes a resume exact
        steps = len(x) // options.batch
        for step, (images, labels) in enumerate(batches(x, y, options.batch)):
            done = self.progress(step / steps, self.seconds + time.perf_counter() - start)
            if done >= 1:
                break
            self.schedule.step_update(int(done * TICKS))
            self.model.patch_drop.prob = (
                options.patch_drop if done < options.patch_drop_until else 0
            )
            losses.append(self.step(images.to(options.device), labels.to(options.device)))
        self.seconds += time.perf_counter() - start
        self.epoch += 1
        return {"steps": len(losses), "loss": float(np.mean(losses)) if losses else float("nan")}

    def step(self, images: Tensor, labels: Tensor) -> float:
        """One update; returns the loss."""
        self.model.train()
        with torch.autocast(self.options.device, torch.bfloat16):
            logits = self.model(images)
        loss = nn.functional.cross_entropy(logits.float(), labels, label_smoothing=0.1)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return float(loss.detach())

    def save(self) -> None:
        """Write what a resume needs."""
        file = io.BytesIO()
        held = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        torch.save({**held, "epoch": self.epoch, "seconds": self.seconds}, file)
        write_atomically(self.state, file.getvalue())


def parse() -> argparse.Namespace:
    """Command-line options."""
    here = Path(__file__).parent
    parser = argparse.ArgumentParser(description="Train a small ViT on CIFAR-10 with labels.")
    parser.add_argument("--data", nargs=2, type=Path, required=True, metavar=("TRAIN", "TEST"))
    parser.add_argument(
        "--out", type=Path, default=here / "checkpoints/vit_tiny_cifar10_supervised.safetensors"
    )
    parser.add_argument("--work", type=Path, default=Path("runs/train_cifar10"))
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--limit-minutes", type=float, default=0.0, help="0: no limit")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--patch-drop", type=float, default=0.5, help="share of patches left out")
    parser.add_argument("--patch-drop-until", type=float, default=0.6, help="share of the run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


def main() -> None:
    """Train, report each epoch, export the weights."""
    options = parse()
    torch.set_num_threads(options.threads)
    x, y, classes = read(options.data[0])
    x_test, y_test, _ = read(options.data[1])
    run = Run(options, len(classes))
    options.work.mkdir(parents=True, exist_ok=True)
    while run.progress(0.0, run.seconds) < 1:
        row = {"epoch": run.epoch, **run.train_epoch(x, y)}
        row |= {"seconds": round(run.seconds, 1), "lr": run.optimizer.param_groups[0]["lr"]}
        row["test_top1"] = accuracy(run.model, x_test, y_test, options.device)
        run.save()
        export(run.model, options.out, len(classes))
        with (options.work / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)
    run.model.load_state_dict(safetensors.torch.load_file(options.out, device=options.device))
    exported = accuracy(run.model, x_test, y_test, options.device)
    print(f"{options.out}: top-1 of the file as written {exported:.2%}")


if __name__ == "__main__":
    main()
