"""Paths of the files that travel with attnprobe: catalogue, sample images, checkpoints.

In a wheel they lie in `attnprobe/shipped/`; in a source checkout (an editable install)
they lie where the repository keeps them.
"""

from pathlib import Path

from attnprobe.errors import AttnprobeError

_HERE = Path(__file__).resolve().parent
_PLACES = {
    "checkpoints.toml": "checkpoints.toml",
    "images": "examples/images",
    "checkpoints": "examples/checkpoints",
}


def path(name: str) -> Path:
    """Path of a shipped file or folder: `checkpoints.toml`, `images` or `checkpoints`.

    Raises:
        AttnprobeError: The installation does not hold it.
    """
    for candidate in (_HERE / "shipped" / name, _HERE.parent / _PLACES[name]):
        if candidate.exists():
            return candidate
    raise AttnprobeError(
        f"the installation lacks its own {name}", "reinstall attnprobe; its wheel carries the file"
    )
