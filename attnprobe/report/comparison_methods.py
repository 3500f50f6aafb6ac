"""How models were compared, in sentences for a methods section."""

from attnprobe.comparison import Comparison


def paragraphs(comparison: Comparison) -> list[str]:
    """Return what a paper has to say about the tests and intervals of a comparison."""
    options, images = comparison.options, comparison.results[0].provenance.images
    level = f"{100 * options.confidence:g} %"
    return [
        f"Models were compared on the same {images} images, which are the sampling unit: on every "
        "image the values of two models were subtracted, and the mean difference carries a "
        f"{level} BCa bootstrap interval over images ({options.resamples} draws, seed "
        f"{options.seed}).",
        "p-values come from the two-sided paired permutation test, which flips the signs of "
        f"differences ({options.permutations} patterns, or all of them where they are fewer); q "
        "controls the false discovery rate over the layers of one quantity, scale, alignment and "
        "pair (Benjamini and Hochberg 1995). d is the standardised mean difference of pairs with "
        "Hedges' correction. The images needed are those that would show a difference of this size "
        "with 80 % power.",
        "Layers are aligned by number and, for models of different depth, by relative depth with "
        "linear interpolation of per-image values. Heads are compared as sets: by the difference "
        "of their standard deviations and by the 1-Wasserstein distance between head means.",
        f"A claim is supported where the whole {level} interval of its quantity lies on the "
        "claimed side of the limit, contradicted where it lies on the other side, and not decided "
        "otherwise. A claim about every layer is supported if each layer's interval lies on the "
        "claimed side, and contradicted if that of some layer, widened for the number of layers "
        "(Bonferroni), lies on the other. Verdicts are not corrected for the number of claims and "
        "pairs. Differences within the resolution of the measurement count as none.",
    ]
