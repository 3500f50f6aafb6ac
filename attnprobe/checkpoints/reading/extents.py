"""How much tensors claim to hold, compared with the file before they are copied."""

from collections.abc import Mapping

from torch import Tensor

from attnprobe.checkpoints.reading import sharded
from attnprobe.checkpoints.reading.weightfiles import Opened
from attnprobe.errors import DISTRUST, CheckpointError

SLACK = 64 * 2**20  # bytes by which overlapping tensors together may exceed their file


def check(tensors: Mapping[str, Tensor], opened: Opened) -> None:
    """Refuse tensors without values, or with more elements than the file has bytes for.

    Raises:
        CheckpointError: Names the tensor.
    """
    _check_values(tensors)
    if opened.container == "npz":  # compressed; what it unpacks to was checked
        return
    size = sharded.size(opened)
    seen: dict[tuple[object, ...], int] = {}  # tied weights are claimed once
    for name, tensor in tensors.items():
        claimed = tensor.numel() * tensor.element_size()
        if claimed > size:
            raise CheckpointError(
                f"{name} claims shape {list(tensor.shape)} in a file of {size} bytes", DISTRUST
            )
        seen[tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype] = claimed
    if sum(seen.values()) > size + SLACK:
        raise CheckpointError(
            f"{len(tensors)} tensors claim {sum(seen.values())} bytes in a file of {size} bytes",
            DISTRUST,
        )


def _check_values(tensors: Mapping[str, Tensor]) -> None:
    empty = [name for name, tensor in tensors.items() if tensor.is_meta]
    if empty:
        raise CheckpointError(
            f"{len(empty)} weights are not dense floating-point tensors: {empty[0]} (sparse, "
            "quantised or without values)",
            "save the weights dense and in floating point, before quantising or pruning",
        )
