"""What the parts of a track are called on axes, pages and terminals."""

from attnprobe.frames import known
from attnprobe.tracking import Track

QUANTITIES = {
    "distance": "Attention distance",
    "entropy": "Attention entropy",
    "head_kl": "Divergence between heads",
    "prefix_mass": "Attention on prefix tokens",
    "cka_last": "CKA with the last checkpoint",
}


def metrics(track: Track) -> list[str]:
    """Return metrics of which a layer mean is known; the usual ones first."""
    held = known(track.tables["track"], "value")["metric"].unique().tolist()
    return [name for name in QUANTITIES if name in held] + sorted(set(held) - set(QUANTITIES))


def quantity(metric: str) -> str:
    """Return the name of a metric for readers.

    >>> quantity("head_kl"), quantity("rank_of_heads")
    ('Divergence between heads', 'Rank of heads')
    """
    return QUANTITIES.get(metric, metric.replace("_", " ").capitalize())


def step_name(step: float) -> str:
    """Return a step as text, without decimals that say nothing.

    >>> step_name(300.0), step_name(0.5), step_name(1250000)
    ('300', '0.5', '1250000')
    """
    return f"{int(step)}" if step == int(step) else f"{step:g}"


def between(track: Track) -> str:
    """Return the first and the last step in words, such as "epoch 10 to epoch 300"."""
    first, last = track.steps[0], track.steps[-1]
    return f"{track.word} {step_name(first)} to {track.word} {step_name(last)}"
