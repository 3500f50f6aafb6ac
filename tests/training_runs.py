"""Small training runs for tests: images in classes that can be told apart, tiny backbones."""

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

TINY = {
    "model": "vit_tiny_patch16_224",
    "img_size": 32,
    "patch_size": 8,
    "model_args": {"embed_dim": 32, "depth": 2, "num_heads": 2},
}
FAST = {
    "workers": 0,
    "precision": "fp32",
    "device": "cpu",
    "trackers": ["none"],
    "log_every": 2,
    "warmup_epochs": 1.0,
}
OWN = {
    "simmim": {"mask_patch": 8},
    "mae": {"decoder_dim": 16, "decoder_depth": 1, "decoder_heads": 2},
    "mocov3": {"dim": 8, "mlp_dim": 16},
    "supervised": {"mixup": 0.0, "cutmix": 0.0, "random_erasing": 0.0, "auto_augment": ""},
}


def picture(label: int, generator: np.random.Generator, side: int = 40) -> bytes:
    """Return a JPEG: a bright square whose place is its class, over noise."""
    pixels = generator.integers(0, 90, (side, side, 3), dtype=np.uint8)
    y, x = divmod(label, 2)
    half = side // 2
    pixels[y * half : (y + 1) * half, x * half : (x + 1) * half, label % 3] += 150
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return file.getvalue()


def npz(path: Path, count: int = 48, *, seed: int = 0, broken: tuple[int, ...] = ()) -> Path:
    """Write a labelled set of four classes; `broken` files are no images."""
    generator = np.random.default_rng(seed)
    files = [picture(index % 4, generator) for index in range(count)]
    files = [b"no image" if i in broken else data for i, data in enumerate(files)]
    np.savez(
        path,
        jpeg=np.frombuffer(b"".join(files), dtype=np.uint8),
        offset=np.cumsum([0, *map(len, files)]),
        label=np.arange(count) % 4,
        classes=np.array(["a", "b", "c", "d"]),
    )
    return path


def config(objective: str, source: Path, **values):
    """Return the configuration of a tiny run."""
    from attnprobe import objectives
    from attnprobe.training.config import configure

    small = {"data": str(source), "batch_size": 12, "epochs": 3, "probe_every": 0, "lr": 1e-2}
    given = {**TINY, **FAST, **small, **OWN[objective], **values}
    return configure(objective, objectives.load(objective).config, given)


def lines(run: Path) -> list[dict]:
    """Return the metrics of a run without what depends on the clock."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in {"seconds", "images_per_s"}} for row in rows]


def tensors(run: Path) -> dict:
    """Return every saved weight of a run."""
    from safetensors.torch import load_file

    return {
        f"{name}/{key}": value
        for name in ("checkpoint.safetensors", "objective.safetensors")
        if (run / name).exists()
        for key, value in load_file(run / name).items()
    }


class StopError(Exception):
    """Ends a run in the middle of an update, as a crash does."""


def stop_after(step: int):
    """Return a listener that ends a run after an update."""

    def listen(update):
        if update.step == step:
            raise StopError

    return listen
