"""Attention statistics: chooses the implementation for the device and the convention.

`reference` is the specification, `blocked` the default everywhere; a fused GPU kernel takes
its place here when the device has one.
"""

from attnprobe.errors import AttnprobeError
from attnprobe.kernels import blocked, reference
from attnprobe.tensors import AttentionInputs, AttentionStats
from attnprobe.types import MetricOptions

IMPLEMENTATIONS = ("auto", "blocked", "reference")


def choose(options: MetricOptions, implementation: str = "auto") -> str:
    """Return the implementation that will run for these conventions.

    >>> choose(MetricOptions()), choose(MetricOptions(divergence="js"))
    ('blocked', 'reference')

    Raises:
        AttnprobeError: The named implementation is unknown or lacks the convention.
    """
    if implementation not in IMPLEMENTATIONS:
        raise AttnprobeError(
            f"unknown kernel {implementation!r}", f"choose one of: {', '.join(IMPLEMENTATIONS)}"
        )
    fast = options.prefix != "excluded" and options.divergence != "js"
    if implementation == "blocked" and not fast:
        raise AttnprobeError(
            f"the blocked kernel has no prefix={options.prefix!r} with {options.divergence!r}",
            "choose the reference kernel or the default conventions",
        )
    if implementation == "auto":
        return "blocked" if fast else "reference"
    return implementation


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
        implementation: auto, blocked or reference.
    """
    options = options or MetricOptions()
    if choose(options, implementation) == "blocked":
        return blocked.attention_stats(inputs, want, prefix=options.prefix)
    divergence = "js" if options.divergence == "js" else "kl"
    stats = reference.attention_stats(inputs, want, prefix=options.prefix, divergence=divergence)
    return AttentionStats(*(None if x is None else x.float() for x in stats))
