"""Say what a loaded model is, what would be captured, and what it would cost."""

from typing import Any

import torch

from attnprobe import tabulate
from attnprobe.analysis import model_card
from attnprobe.capture import capture
from attnprobe.checkpoints import LoadedModel
from attnprobe.kernels.blocked import TILE_BYTES
from attnprobe.resources import batch_size
from attnprobe.tensors import AttentionInputs, Features
from attnprobe.types import LayerInfo

MIB = 2**20
# floats a token holds at once in a block: input, normed, qkv (3), output, and the MLP's 4
LIVE_CHANNELS = 11


def describe(loaded: LoadedModel, *, batch: int = 0) -> dict[str, Any]:
    """Return the model card, one row a layer, and a memory estimate in MiB.

    One blank image goes through the model, so what is reported is what really runs.

    Args:
        loaded: The model.
        batch: Images of a pass; 0 for what `analyze` would choose.
    """
    sizes: list[int] = []

    def keep_size(features: Features) -> None:
        sizes.append(features.x[0].numel() * 4)

    largest: list[int] = []

    def keep_inputs(inputs: AttentionInputs) -> None:
        largest.append((inputs.q[0].numel() + inputs.k[0].numel()) * 4 * inputs.windows)

    device = next(loaded.module.parameters()).device
    batch = batch_size(batch, loaded.spec.input_size, device)
    blank = torch.zeros(1, *loaded.spec.input_size, device=device)
    watched = capture(loaded.module, keep_inputs, keep_size, readers=loaded.readers)
    with torch.inference_mode(), watched as taps:
        loaded.module(blank)
    layers: list[LayerInfo] = taps.layers
    weights = sum(p.numel() * p.element_size() for p in loaded.module.parameters())
    memory = {
        "batch": batch,
        "weights_mib": weights / MIB,
        "forward_mib": batch * LIVE_CHANNELS * max(sizes) / MIB,
        "measuring_mib": (batch * max(largest) + 2 * TILE_BYTES) / MIB,
    }
    return {
        "model": model_card(loaded),
        "layers": tabulate.layers_table(layers, uniform={}, maximum={}),
        "memory": memory,
    }
