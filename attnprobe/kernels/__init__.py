"""Attention statistics: chooses the implementation for the device and the convention.

`reference` is the specification, `fused` the fast path on NVIDIA graphics cards and `blocked`
the one everywhere else and for layers beyond the fused kernel's sizes.
"""

from types import ModuleType

from attnprobe.errors import AttnprobeError
from attnprobe.kernels import blocked, fused, reference
from attnprobe.tensors import AttentionInputs, AttentionStats
from attnprobe.types import MetricOptions

IMPLEMENTATIONS = ("auto", "fused", "blocked", "reference")
FAST: dict[str, ModuleType] = {"fused": fused, "blocked": blocked}


def choose(
    options: MetricOptions, implementation: str = "auto", inputs: AttentionInputs | None = None
) -> str:
    """Return the implementation that will run for these conventions and inputs.

    Left to itself it takes the fused kernel on a graphics card that can run it, if the layer
    has at most 128 channels a head and 64 prefix tokens, and the blocked one elsewhere.

    Args:
        options: Conventions of the metrics.
        implementation: auto, fused, blocked or reference.
        inputs: One layer of one batch. Without it nothing is known of the device: auto then
            answers as for the CPU, and fused is refused only where the machine cannot run it.

    >>> choose(MetricOptions()), choose(MetricOptions(divergence="js"))
    ('blocked', 'reference')

    Raises:
        AttnprobeError: The named implementation is unknown, lacks the convention, or cannot
            run on these inputs or this machine.
    """
    if implementation not in IMPLEMENTATIONS:
        raise AttnprobeError(
            f"unknown kernel {implementation!r}", f"choose one of: {', '.join(IMPLEMENTATIONS)}"
        )
    common = options.prefix != "excluded" and options.divergence != "js"
    if implementation in FAST and not common:
        raise AttnprobeError(
            f"the {implementation} kernel has no prefix={options.prefix!r} "
            f"with {options.divergence!r}",
            "choose the reference kernel or the default conventions",
        )
    if implementation == "fused":
        fused.require(inputs)
    if implementation != "auto":
        return implementation
    if not common:
        return "reference"
    return "fused" if inputs is not None and fused.preferred(inputs) else "blocked"


def attention_stats(
    inputs: AttentionInputs,
    want: frozenset[str],
    options: MetricOptions | None = None,
    implementation: str = "auto",
) -> AttentionStats:
    """Return per-image statistics of one layer of one batch.

    Args:
        inputs: Queries, keys, scale and bias as the model used them.
        want: Any of distance, entropy, prefix_mass, kl.
        options: Conventions; the defaults are METRICS.md's.
        implementation: auto, fused, blocked or reference.
    """
    options = options or MetricOptions()
    chosen = choose(options, implementation, inputs)
    if chosen in FAST:
        return FAST[chosen].attention_stats(inputs, want, prefix=options.prefix)
    divergence = "js" if options.divergence == "js" else "kl"
    stats = reference.attention_stats(inputs, want, prefix=options.prefix, divergence=divergence)
    return AttentionStats(*(None if x is None else x.float() for x in stats))
