"""Writes the weights of a run: the encoder under timm's names, the rest beside it."""

import json
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from attnprobe.checkpoints.building import creating
from attnprobe.checkpoints.reading import metadata
from attnprobe.errors import AttnprobeError, CheckpointError
from attnprobe.training import backbones, outputs

if TYPE_CHECKING:
    from attnprobe.training.assembly import Run

BEST = "best.safetensors"
SNAPSHOTS = "checkpoints"


class Weights:
    """The weights of a run, whole, whichever way processes share them.

    Raises:
        AttnprobeError: Their card, with the run's name, cannot be saved.
    """

    def __init__(self, run: "Run") -> None:
        self.run = run
        self._twin: nn.Module | None = None
        self._heads = creating.heads(run.objective.encoder(run.plain))
        self._check_card()

    def encoder(self) -> nn.Module:
        """Return the encoder to evaluate: averaged where there is an average; all call."""
        run = self.run
        if run.ema is not None:
            return run.ema.module
        if not self._sharded():
            return run.objective.encoder(run.plain)
        state, _ = outputs.split(self._state())
        if self._twin is None:
            self._twin = backbones.create(run.config, classes=run.framing.classes)
        if state:  # only the main process is given the whole
            self._twin.load_state_dict(state)
        return self._twin

    def write(self) -> None:
        """Write the checkpoint and the rest of the objective; all processes call.

        Raises:
            AttnprobeError: A weight is no number; the earlier files stay.
        """
        encoder, rest = self._parts()
        if self.run.main:
            bad = outputs.check_finite(encoder)
            if bad is not None:
                raise AttnprobeError(
                    f"{bad} holds values that are not numbers after update "
                    f"{self.run.progress.step}; nothing was overwritten",
                    "train into another --out with a lower --lr or --precision fp32",
                )
            self._put(outputs.ENCODER, encoder)
            self._put(outputs.REST, rest)

    def write_best(self) -> None:
        """Keep these weights as the best so far; all processes call."""
        encoder, _ = self._parts()
        if self.run.main:
            self._put(BEST, encoder)

    def snapshot(self, epoch: int) -> None:
        """Keep the encoder of an epoch for `attnprobe track`; all processes call."""
        encoder, _ = self._parts()
        if self.run.main:
            self._put(f"{SNAPSHOTS}/epoch-{epoch:04d}.safetensors", encoder)

    def _put(self, name: str, tensors: dict[str, Tensor]) -> None:
        outputs.put(self.run.out / name, outputs.packed(tensors, self._card()))

    def _card(self) -> dict[str, Any]:
        run = self.run
        return outputs.card_of(
            run.spec,
            self._heads,
            kind=run.objective.kind,
            classes=run.framing.classes,
            step=run.progress.step,
            epoch=run.epoch,
        )

    def _check_card(self) -> None:
        """Refuse what a checkpoint could not be read again with, such as a name of two lines."""
        path = self.run.out / outputs.ENCODER
        try:
            metadata.parse(path, {"attnprobe": json.dumps(self._card())})
        except (TypeError, CheckpointError) as error:
            cause = getattr(error, "cause", error)
            raise AttnprobeError(
                f"checkpoints of this run could not be read: {cause}",
                "change --name or --model-arg",
            ) from error

    def _parts(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the encoder's tensors, averaged where asked, and the others."""
        encoder, rest = outputs.split(self._state())
        if self.run.ema is not None:
            encoder = dict(self.run.ema.module.state_dict())
        return encoder, rest

    def _state(self) -> dict[str, Tensor]:
        state: Any = self.run.accelerator.get_state_dict(self.run.module)
        return {name.removeprefix("_orig_mod."): value for name, value in state.items()}

    def _sharded(self) -> bool:
        return self.run.accelerator.distributed_type.value == "FSDP"
