"""What is switched while a model is watched, and put back afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from attnprobe.attention.reader import kind_of

_MASKING = {"modeling_vit_mae.ViTMAEEmbeddings"}


@contextmanager
def settled(model: nn.Module) -> Iterator[None]:
    """Let a model attend where it can be seen, and over whole images.

    Torch's fused encoder layers are off, which round otherwise in the last bit, and so is the
    random masking of transformers' masked autoencoders, which hides patches and shuffles the
    others in every pass.

    Args:
        model: The model; it is left as it was found.
    """
    fused = torch.backends.mha.get_fastpath_enabled()
    masking = [part for part in model.modules() if kind_of(part) in _MASKING]
    torch.backends.mha.set_fastpath_enabled(False)
    for part in masking:
        vars(part)["random_masking"] = _unmasked
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        for part in masking:
            del vars(part)["random_masking"]


def _unmasked(sequence: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Return all tokens in their order, a mask that hides none, and the order to restore."""
    del noise
    images, tokens, _ = sequence.shape
    order = torch.arange(tokens, device=sequence.device).expand(images, tokens)
    return sequence, sequence.new_zeros(images, tokens), order
