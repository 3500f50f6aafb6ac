"""When the fused kernel takes all heads of a block of queries together, and in what blocks.

Taken by pairs, a head's logits are made once for the rows and once for every other head; taken
together they are made once. Together is the faster way wherever its blocks fit, if Triton builds
the program right: a device is trusted with it after one small layer agrees with the other way.
"""

import torch
from torch import Tensor

from attnprobe.kernels._call import Call, per_image, power
from attnprobe.kernels._launching import interpreted, launch, release
from attnprobe.tensors import AttentionInputs, AttentionStats
from attnprobe.types import LayerInfo, TokenGrid

MIN_HEADS = 3
MAX_HEADS = 32
MAX_WIDE_HEADS = 16  # of fp32; 32 of them take 128 KiB of shared memory
MAX_PREFIX = 16  # keys of one product; more would take a block of another shape
# what two right answers may differ by, relative; a wrong program is off by more than a percent
TOLERANCE = 1e-4
OLDEST = (3, 3)  # Triton; 3.2 aborts on it, which no program can catch

Key = tuple[object, ...]


def unfit(inputs: AttentionInputs) -> str:
    """Return why the heads of this layer are taken by pairs, or "" if they fit together.

    Args:
        inputs: One layer of one batch, which the fused kernel can run.
    """
    if release() < OLDEST:
        return f"Triton before {OLDEST[0]}.{OLDEST[1]} ends the process that builds the program"
    heads = inputs.q.shape[1]
    if heads < MIN_HEADS:
        return f"{heads} heads are taken by pairs at less work"
    wide = inputs.q.dtype != inputs.k.dtype or inputs.q.dtype == torch.float32
    most = MAX_WIDE_HEADS if wide else MAX_HEADS
    if heads > most:
        return f"at most {most} heads of these types fit together, and the layer has {heads}"
    if inputs.grid.prefix > MAX_PREFIX:
        return f"at most {MAX_PREFIX} prefix tokens fit, and the layer has {inputs.grid.prefix}"
    return ""


def block_sizes(heads: int, dim: int, *, wide: bool, biased: bool) -> dict[str, int]:
    """Return block sizes and launch options of the program.

    Seen, by compiling: up to 16 heads spill at most 32 bytes a thread, up to 32 heads at most
    144, and no block takes more than 99 KiB of shared memory, which the smallest cards have.
    Reasoned, not measured:

    - 16 keys a block, the least a product takes: the logits, weights and both halves of either
      are in registers together, and that limits everything else.
    - At most 8 heads: heads x queries are 128, by 4 warps: several programs share a processor, and
      one works while another waits for its threads, as each does eight times a block of keys.
    - More heads: 16 queries, the least a product takes, by 8 warps.
    - Up to 64 channels of 16-bit values at once, so that queries are read once; in parts of 16
      or 32 where the parts of all heads would not fit beside each other.
    """
    block_h = power(heads, least=4)
    small = wide or block_h > 16
    whole = power(dim)
    block_d = min(whole, 16) if small else whole if whole <= 64 else 32
    return {
        "HEADS": block_h,
        "STACK": max(16, block_h),
        "BLOCK_M": max(16, 128 // block_h),
        "BLOCK_N": 16,
        "BLOCK_D": block_d,
        "CHANNELS": -(-dim // block_d) * block_d,
        "num_warps": 4 if block_h <= 8 else 8,
        "num_stages": 1 if block_h > 16 or (wide and biased) else 2,
    }


def key(inputs: AttentionInputs) -> Key:
    """Return what the compiled program depends on, the device included."""
    bias = None if inputs.bias is None else inputs.bias.dtype
    shape = (inputs.q.shape[1], inputs.k.shape[1], inputs.q.shape[-1], inputs.grid.prefix)
    return (inputs.q.device, inputs.q.dtype, inputs.k.dtype, bias, *shape)


def trial(inputs: AttentionInputs) -> AttentionInputs:
    """Return a small layer for which the same program is compiled as for `inputs`."""
    generator = torch.Generator().manual_seed(0)
    # neither rows nor keys fill their last block
    grid = TokenGrid(5, 8, (16, 16), prefix=inputs.grid.prefix)

    def random(like: Tensor, *shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(like.device, like.dtype)

    heads, dim = inputs.q.shape[1], inputs.q.shape[-1]
    q = random(inputs.q, 1, heads, grid.tokens, dim)
    k = random(inputs.k, 1, inputs.k.shape[1], grid.tokens, dim)
    bias = None
    if inputs.bias is not None:
        bias = random(inputs.bias, 1, heads, grid.tokens, grid.tokens)
        bias[..., 1::3] = float("-inf")
    return AttentionInputs(LayerInfo(0, "trial", heads, dim, grid), 1, q, k, dim**-0.5, bias)


def difference(found: AttentionStats, truth: AttentionStats) -> str:
    """Return how statistics of one layer differ by more than `TOLERANCE`, or "" if they do not."""
    for name, one, two in zip(AttentionStats._fields, found, truth, strict=True):
        if one is not None and two is not None and one.numel():
            apart = float((one - two).abs().max() / two.abs().max().clamp(min=1.0))
            if not apart <= TOLERANCE:  # a NaN is not
                return f"heads taken together gave another {name} (off by {apart:.1e}, relative)"
    return ""


def run(call: Call, grid: TokenGrid, want: frozenset[str]) -> AttentionStats:
    """Return the wanted statistics, kl among them, from one program over the keys.

    Args:
        call: One layer, which `unfit` does not refuse.
        grid: Its geometry.
        want: Any of distance, entropy, prefix_mass; kl is made anyway.

    Raises:
        AttnprobeError: Triton could not compile or start the program.
    """
    from attnprobe.kernels import _programs_heads

    wide, biased = call.options["WIDE"], call.options["BIASED"]
    tile = block_sizes(call.heads, int(call.sizes[4]), wide=wide, biased=biased)
    blocks = -(-call.queries // tile["BLOCK_M"])
    stack, shape = tile["STACK"] // tile["HEADS"], (call.batch, blocks)
    kl = call.empty(*shape, stack, call.heads, call.heads)
    entropy = call.empty(*shape, stack, call.heads)
    distance = call.empty(*shape, call.heads)
    mass = call.empty(*shape, call.heads, call.prefix)
    place = (grid.extent[1], float(grid.patch[0]), float(grid.patch[1]))
    launch(
        _programs_heads.head_statistics,
        call.batch * blocks,
        (*call.tensors, kl, entropy, distance, mass, *call.strides, *call.sizes, *place),
        **tile,
        **call.options,
        BLOCK_P=16,
        EMULATED=interpreted(),
        DISTANCE="distance" in want,
        MASS="prefix_mass" in want and call.prefix > 0,
        SEPARATE=call.sizes[6] > 0,
    )

    def mean(name: str, sums: Tensor) -> Tensor | None:
        return per_image(sums.double() / call.queries, call.images) if name in want else None

    return AttentionStats(
        distance=mean("distance", distance.sum(1, dtype=torch.float64)),
        entropy=mean("entropy", entropy.sum((1, 2), dtype=torch.float64).clamp(min=0)),
        prefix_mass=mean("prefix_mass", mass.sum(1, dtype=torch.float64)),
        kl=mean("kl", kl.sum((1, 2), dtype=torch.float64).clamp(min=0)),
    )
