"""Compile the fused kernel for graphics cards that need not be there, down to machine code.

    python benchmarks/compile_kernels.py --capability 90 --capability 80

Prints registers a thread, bytes spilled, shared memory a block and matrix instructions of all
programs at the block sizes that `attnprobe.kernels.fused` launches, of both its variants.
"""

import re
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple, cast

import click
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from attnprobe import doctor
from attnprobe.kernels import _launching, _together, fused
from attnprobe.types import TokenGrid

VIT = TokenGrid(14, 14, (16, 16), prefix=1)
SWIN = TokenGrid(14, 14, (4, 4), window=(7, 7), shift=(3, 3))
CASES = {
    "ViT-Ti": (VIT, 3, 64),
    "ViT-S": (VIT, 6, 64),
    "ViT-B": (VIT, 12, 64),
    "ViT-g": (VIT, 24, 64),
    "ViT-H": (VIT, 16, 80),
    "32 heads of 128": (VIT, 32, 128),
    "Swin-T": (SWIN, 3, 32),
    "Swin-B": (SWIN, 32, 32),
    "one token": (TokenGrid(1, 1, (16, 16)), 2, 64),
}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Card:
    """What Triton asks a driver before it compiles."""

    def __init__(self, capability: int) -> None:
        self.target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> GPUTarget:
        """Return what to compile for."""
        return self.target

    def get_current_device(self) -> int:
        """Return a number for the compiled programs to be kept under."""
        return int(self.target.arch)

    def get_current_stream(self, device: int) -> int:
        """Return no stream."""
        del device
        return 0

    def get_active_torch_device(self) -> torch.device:
        """Return where tensors are: Triton 3.3 asks for it."""
        return torch.device("cpu")


class Row(NamedTuple):
    """One compiled program."""

    capability: int
    case: str
    dtype: str
    program: str
    registers: int
    spilled: int
    shared: int
    products: int
    seconds: float


def usage(cubin: bytes) -> dict[str, int]:
    """Return registers and stack that the machine code says it takes."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(tool), "--dump-resource-usage", file.name]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {name: int(value) for name, value in re.findall(r"(REG|STACK):(\d+)", said)}


def compiled(capability: int, case: str, dtype: str) -> list[Row]:
    """Compile all programs of one case."""
    rows: list[Row] = []

    def compile_only(program: Any, blocks: int, arguments: tuple, **options: Any) -> None:
        begin = time.perf_counter()
        kernel = program.warmup(*arguments, grid=(blocks,), **options)
        seconds = time.perf_counter() - begin
        taken = usage(kernel.asm["cubin"])
        products = len(re.findall(r"mma_async|mma\.sync|tcgen05\.mma", kernel.asm["ptx"]))
        name = program.fn.__name__
        sizes = (taken["REG"], taken["STACK"], kernel.metadata.shared, products, seconds)
        rows.append(Row(capability, case, dtype, name, *sizes))

    driver.set_active(cast(Any, Card(capability)))
    _launching._device_limits = lambda device: ""
    fused.launch = _together.launch = compile_only
    grid, heads, dim = CASES[case]
    windows = 4 if grid.window else 1
    inputs = doctor.example(grid, heads, dim, windows=windows, dtype=DTYPES[dtype])
    fused.attention_stats(inputs, doctor.ALL, variant="pairs")
    if not _together.unfit(inputs):
        fused.attention_stats(inputs, doctor.ALL, variant="together")
    return rows


@click.command()
@click.option("--capability", "capabilities", multiple=True, type=int, default=(90, 80))
@click.option("--case", "cases", multiple=True, type=click.Choice(list(CASES)), default=CASES)
@click.option("--dtype", "dtypes", multiple=True, type=click.Choice(list(DTYPES)), default=DTYPES)
def main(capabilities: tuple[int, ...], cases: tuple[str, ...], dtypes: tuple[str, ...]) -> None:
    """Print one tab-separated line a program."""
    print("\t".join(Row._fields))
    for capability in capabilities:
        for case in cases:
            for dtype in dtypes:
                for row in compiled(capability, case, dtype):
                    cells = (f"{x:.1f}" if isinstance(x, float) else str(x) for x in row)
                    print("\t".join(cells), flush=True)


if __name__ == "__main__":
    main()
