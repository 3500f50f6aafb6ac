"""Small photographs and the places that can hold them, for the tests about images."""

import io
import struct
import tarfile
import zlib

import numpy as np
import torch
from PIL import Image

from attnprobe.types import CheckpointSpec

SPEC = CheckpointSpec("small", "vit", input_size=(3, 32, 32), crop_pct=0.9, interpolation="bicubic")
NAMES = ("a/2.jpg", "a/b/1.JPG", "a/b/3.jpg", "c.jpg", "d e.jpg")


def photograph(seed, size=(48, 40)):
    grid = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(grid).resize(size, Image.Resampling.BICUBIC)


def encode(image, file_format="JPEG", **options):
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def drain(images, batch_size=2, **options):
    batches = list(images.batches(batch_size, **options))
    return [i for b in batches for i in b.ids], torch.cat([b.x for b in batches]), batches


def write_folder(tmp_path):
    root = tmp_path / "photos"
    for seed, name in enumerate(NAMES):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(photograph(seed)))
    (root / "notes.md").write_text("not an image")
    (root / ".hidden.jpg").write_bytes(b"")
    return root


def write_source(folder, tmp_path, kind):
    names = sorted(NAMES)
    if kind in ("list", "strings"):
        return [folder / name if kind == "list" else str(folder / name) for name in names]
    if kind == "txt":
        path = tmp_path / "list.txt"
        path.write_text("# photographs\n\n" + "\n".join(f"photos/{name}" for name in names))
    elif kind.startswith("npz"):
        path, files = tmp_path / "set.npz", [(folder / name).read_bytes() for name in names]
        save = np.savez_compressed if "compressed" in kind else np.savez
        edges = np.cumsum([0, *map(len, files)])
        save(path, jpeg=np.frombuffer(b"".join(files), dtype=np.uint8), offset=edges)
    else:
        path = tmp_path / "set.tar"
        with tarfile.open(path, "w") as archive:
            for name in reversed(names):
                archive.add(folder / name, arcname=f"./{name}")
            archive.add(folder / "notes.md", arcname="notes.md")
            archive.add(folder / "c.jpg", arcname="../escape.jpg")
            link = tarfile.TarInfo("link.jpg")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(link)
    return path


def bomb(width, height):
    """Header of a PNG that would decode to gigabytes."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0" * 99))
