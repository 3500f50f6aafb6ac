"""torch.compile of what lies between the attention layers.

Attention itself stays as it is: capture watches it call by call, and a compiled call cannot be
watched. Norms and MLPs are most of the work beside it.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from attnprobe.attention import READERS, discover
from attnprobe.errors import AttnprobeError


@contextmanager
def compiled(model: nn.Module, *, wanted: bool = True, backend: str = "inductor") -> Iterator[None]:
    """Compile the parts of every block but its attention; undone when the context closes.

    Args:
        model: A model whose attention some reader knows.
        wanted: Whether to do anything.
        backend: torch.compile's.

    Raises:
        AttnprobeError: The parts cannot be compiled here.
    """
    parts = parts_beside_attention(model) if wanted else []
    before = [part._compiled_call_impl for part in parts]
    for part in parts:
        part.compile(backend=backend)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="torch")  # of the compiler about itself
            yield
    except Exception as error:
        if not parts or not type(error).__module__.startswith("torch._"):
            raise
        raise AttnprobeError(
            f"the model cannot be compiled here: {str(error).strip().splitlines()[0][:200]}",
            "install a C++ compiler, or leave --compile out",
        ) from error
    finally:
        for part, call in zip(parts, before, strict=True):
            part._compiled_call_impl = call


def parts_beside_attention(model: nn.Module) -> list[nn.Module]:
    """Return the children of every block that have weights and hold no attention."""
    found = []
    for site in discover(model, READERS):
        attention = set(site.module.modules())
        for part in site.block.children():
            apart = not attention & set(part.modules())
            if apart and any(True for _ in part.parameters()):
                found.append(part)
    return found
