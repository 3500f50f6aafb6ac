"""Everything attnprobe raises on purpose: one tree, each with its cause and its remedy."""

DISTRUST = "do not trust this file; get it from its authors"


class AttnprobeError(Exception):
    """Something a person can act on: what went wrong, with what, and what to do next.

    Args:
        cause: One sentence that names the offending thing and what was expected of it.
        remedy: One sentence with the next step.
    """

    def __init__(self, cause: str, remedy: str = "") -> None:
        super().__init__(cause if not remedy else f"{cause}\n  Next step: {remedy}")
        self.cause = cause
        self.remedy = remedy


class CheckpointError(AttnprobeError):
    """A checkpoint file cannot be read, or is not what its name says."""


class FormatError(CheckpointError):
    """The tensors were read but no known checkpoint format explains them."""


class PartialLoadError(CheckpointError):
    """Encoder weights are missing, left over, or of the wrong shape."""


class CaptureError(AttnprobeError):
    """An attention block did not report, reported twice, or cannot be read."""


class GeometryError(AttnprobeError):
    """Attention without image geometry was asked for a quantity that needs one."""


class ImagesError(AttnprobeError):
    """No usable images were found."""


class ResultError(AttnprobeError):
    """A saved result is absent, incomplete, or of a newer schema."""


class OutputError(AttnprobeError):
    """The output folder exists, is not writable, or the disk is full."""
