"""Which file of a folder is the model: folders as training frameworks and hubs write them."""

import re
from pathlib import Path

from attnprobe.errors import CheckpointError

INDEX = ".index.json"
# whole models under the names that frameworks give them, the safer container first
WHOLE = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "open_clip_model.safetensors",
    "open_clip_model.safetensors.index.json",
    "open_clip_pytorch_model.bin",
    "mp_rank_00_model_states.pt",
)
_STATE = re.compile(
    r"^(optimizer|scheduler|scaler|sampler|dl_state_dict|rng_state|random_states|training_args"
    r"|custom_checkpoint|.*optim_states)"
)
_SHARD = re.compile(r"-\d{5}-of-\d{5}\.(safetensors|bin)$")
_OTHER = re.compile(r"^(model|pytorch_model|open_clip_model)_\d+\.(safetensors|bin)$")
_SHOWN = 5


def choose(folder: Path, suffixes: tuple[str, ...]) -> Path:
    """Return the file (or the index of a sharded model) that a folder's model lies in.

    Args:
        folder: The folder.
        suffixes: Of checkpoint files.

    Raises:
        CheckpointError: None, several, or a model that is spread over processes.
    """
    folder = _latest(folder)
    whole = next((folder / name for name in WHOLE if (folder / name).is_file()), None)
    _refuse_partitions(folder, whole)
    if whole is not None:
        return whole
    files = _candidates(folder, suffixes)
    if len(files) == 1:
        return files[0]
    names = ", ".join(item.name for item in files[:_SHOWN]) or "none"
    raise CheckpointError(
        f"{folder} is a folder with {len(files)} checkpoint files ({names}), expected one",
        f"give the file itself ({' '.join(suffixes)})",
    )


def left_out(path: Path) -> tuple[str, ...]:
    """Say what else lies beside a model that a framework saved."""
    if path.name not in WHOLE:
        return ()
    names = sorted(item.name for item in path.parent.iterdir())
    models = [name for name in names if _OTHER.match(name)]
    state = [name for name in names if _STATE.match(name)]
    notes = []
    if models:
        told = ", ".join(models[:_SHOWN])
        notes.append(f"weights taken from {path.name}; the folder also holds {told}")
    if state:
        told = ", ".join(state[:_SHOWN])
        notes.append(f"{path.name} taken from a state of training; left out: {told}")
    return tuple(notes)


def alone(path: Path, suffixes: tuple[str, ...]) -> bool:
    """Whether what lies beside a file can only be about that file."""
    if path.name in WHOLE or path.name.endswith(INDEX) or _SHARD.search(path.name):
        return True
    return _candidates(path.parent, suffixes) == [path]


def _candidates(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    return sorted(
        item
        for item in folder.iterdir()
        if item.suffix in suffixes and item.is_file() and not _STATE.match(item.name)
    )


def _latest(folder: Path) -> Path:
    """Follow DeepSpeed's `latest`, a text file that names the folder of the last step."""
    pointer = folder / "latest"
    if not pointer.is_file() or pointer.stat().st_size > 200:
        return folder
    name = pointer.read_text(encoding="utf-8", errors="replace").strip()
    plain = re.fullmatch(r"[\w-][\w.-]*", name) is not None
    nothing = not any((folder / whole).is_file() for whole in WHOLE)
    return folder / name if plain and nothing and (folder / name).is_dir() else folder


def _refuse_partitions(folder: Path, whole: Path | None) -> None:
    """Refuse weights that several processes hold a share of, where they lie nowhere whole."""
    shares = sorted([*folder.glob("*.distcp"), *folder.glob("*/*.distcp")])
    if whole is None and shares:
        raise CheckpointError(
            f"{folder} holds a distributed checkpoint ({shares[0].name}), whose directory of "
            "tensors is a pickle",
            "make it one file with `python -m torch.distributed.checkpoint.format_utils "
            f"dcp_to_torch {shares[0].parent} model.pt` if you trust it, and give that",
        )
    pieces = sorted(item.name for item in folder.glob("zero_pp_rank_*_model_states.pt"))
    ranks = sorted(item.name for item in folder.glob("mp_rank_*_model_states.pt"))
    consolidated = whole is not None and not whole.name.startswith("mp_rank")
    if pieces and not consolidated:
        raise CheckpointError(
            f"{folder} holds DeepSpeed ZeRO's shares of the weights ({pieces[0]}, ...)",
            "gather them with the zero_to_fp32.py that lies beside the checkpoint",
        )
    if len(ranks) > 1 and not consolidated:
        raise CheckpointError(
            f"{folder} holds a model that {len(ranks)} processes have a part of ({ranks[0]}, ...)",
            "save it whole, with model parallelism of 1",
        )
