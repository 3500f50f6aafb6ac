"""CrossViT (Chen et al. 2021): two branches of other patches, and class tokens across them."""

from attnprobe.attention.placing import around
from attnprobe.attention.reader import kind_of
from attnprobe.attention.strides import counted, owner
from attnprobe.attention.variant import At, Variant
from attnprobe.types import TokenGrid


def _branch(at: At) -> TokenGrid:
    """Place the patches of one branch on the image, which it sees at a scale of its own."""
    model = owner(at, "crossvit.CrossVit")
    outer = next(name for name, part in around(at) if kind_of(part) == "crossvit.MultiScaleBlock")
    index = int(at.name.removeprefix(f"{outer}.blocks.").partition(".")[0])
    scaled, patch = model.img_size_scaled[index], model.patch_embed[index].patch_size
    rows, cols = scaled[0] // patch[0], scaled[1] // patch[1]
    cropped = model.crop_scale and scaled[0] <= at.image[0] and scaled[1] <= at.image[1]
    seen = scaled if cropped else at.image
    cell = (patch[0] * seen[0] / scaled[0], patch[1] * seen[1] / scaled[1])
    return counted(at, TokenGrid(rows, cols, cell, prefix=1, names=("cls",)))


def _class(at: At) -> None:
    """Return None: the only query is a class token."""
    del at


VARIANTS = (
    Variant("crossvit.MultiScaleBlock", place=_branch),
    Variant("crossvit.CrossAttention", place=_class),
)
