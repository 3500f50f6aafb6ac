"""What happens beside the updates: lines of metrics, probes, evaluations, pictures, saves."""

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from attnprobe.training import guard, manifest, outputs, scoring, states
from attnprobe.training.events import Listener, Update
from attnprobe.training.journal import Journal
from attnprobe.training.machine import gather
from attnprobe.training.weights import Weights

if TYPE_CHECKING:
    from attnprobe.training.assembly import Run


class Watch:
    """Everything a run does between its updates; all processes have one.

    Attributes:
        scores: Last value of every score, by name.
    """

    def __init__(
        self,
        run: "Run",
        *,
        listener: Listener | None,
        say: Callable[[str], None],
        command: str,
    ) -> None:
        self.run, self.listener, self.say = run, listener, say
        self.command = manifest.first_command(run.out) or command
        self.journal, self.weights = Journal(run.out), Weights(run)
        self.scores: dict[str, float] = {}
        self.created = manifest.begun(run.out)
        self.saved_at = self.told_at = time.perf_counter()
        self.told_step, self.rate = 0, 0.0
        self.probe: Any = None
        self.best_name = "knn_top1" if run.validation is not None else "loss"

    def begin(self, resumed: int | None) -> None:
        """Check the room on the disk, rewind the metrics, measure the attention at the start.

        Raises:
            AttnprobeError: The disk is too full, or the attention cannot be measured.
        """
        run = self.run
        self.told_step = run.progress.step
        if run.main:
            self._check_room()
            self.journal.rewind(resumed or 0)
            self.scores = self.journal.last_scores()
            states.clean(run.out)
        self._start_trackers(resumed)
        with scoring.unprobed_as_remedy():
            self.probe = scoring.probe_of(run, say=self.say) if run.main else None
        self.note("running")
        if run.main:
            self.say(self._opening(resumed))
        with scoring.unprobed_as_remedy():
            self._probe(force=False)
        if run.config.save.snapshot_every and not run.progress.step:
            self.weights.snapshot(0)
        run.accelerator.wait_for_everyone()

    def after_update(self, *, save: bool) -> None:
        """Do what is due after an update."""
        run, every = self.run, self.run.config.watch.log_every
        step = run.progress.step
        over = step == run.steps or step % run.steps_per_epoch == 0
        if over or step % every == 0 or run.accelerator.device.type == "cpu":
            self._look(line=over or step % every == 0)
        self._tell()
        self._probe(force=step == run.steps)
        if over:
            self._epoch_over()
        if save or step == run.steps:
            self.save()

    def settle(self) -> None:
        """Check the losses that were not looked at yet, before they are saved.

        Raises:
            DivergedError: One of them is no number.
        """
        values = self.run.progress.unseen()
        guard.check(self.run, values)

    def save_due(self) -> bool:
        """Whether a state is to be saved after the update just done, by its number."""
        every = self.run.config.save.save_every
        return bool(every) and self.run.progress.step % every == 0

    def minutes_over(self) -> bool:
        """Whether this process's clock says that a state is to be saved."""
        section = self.run.config.save
        minutes = (time.perf_counter() - self.saved_at) / 60
        return not section.save_every and 0 < section.save_minutes <= minutes

    def save(self) -> None:
        """Write weights and state; all processes call.

        Raises:
            OutputError: The disk is full; earlier states are whole.
        """
        run = self.run
        self.settle()
        if run.main:
            states.check_room(run.out, needed=self._state_size(), what="saving the run")
        self._gather()
        self.weights.write()
        states.save(run.accelerator, run.out, run.progress.step, keep=run.config.save.keep)
        self.saved_at = time.perf_counter()
        self.note("running")

    def end(self, status: str) -> None:
        """Write what a finished or interrupted run leaves; all processes call."""
        run = self.run
        self._gather()
        self.note(status)
        if run.main:
            card = outputs.model_card(self._facts(status), self.scores)
            outputs.put(run.out / outputs.CARD, card.encode())
            scoring.write_report(run.out, say=self.say)
        run.accelerator.wait_for_everyone()

    def broken_names(self) -> tuple[str, ...]:
        """Names of images that could not be read and were replaced by others."""
        return tuple(self.run.pictures.name(index) for index in sorted(self.run.progress.broken))

    def _look(self, *, line: bool) -> None:
        """Look at the newest losses, and write a line of metrics where one is due."""
        run = self.run
        guard.check(run, run.progress.unseen())
        if not line or not run.progress.losses:
            return
        names, values = zip(*run.progress.means().items(), strict=True)
        reduced: list[Any] = [run.accelerator.reduce(one, reduction="mean") for one in values]
        found = {name: float(value) for name, value in zip(names, reduced, strict=True)}
        found["lr"] = max(group["lr"] for group in run.optimizer.param_groups)
        found["images_per_s"] = self._measure_rate()
        found["seconds"] = round(run.progress.seconds, 3)
        run.progress.close()
        self._write("train", found)

    def _epoch_over(self) -> None:
        """Evaluate, draw, keep a snapshot and the best weights where an epoch says so."""
        run = self.run
        epoch, last = round(run.epoch), run.progress.step == run.steps
        guard.check_broken(run)
        mean = run.progress.end_epoch()
        every = run.config.watch.eval_every
        scores: dict[str, float] = {}
        if last or (every and epoch % every == 0):
            encoder = self.weights.encoder()
            if run.main:
                scores = scoring.evaluate(run, encoder, say=self.say)
                self.scores |= scores
        if scores:
            self._write("eval", scores)
        if run.objective.pictures and run.main and scoring.pictures_due(run, epoch):
            scoring.draw(run, epoch)
        if run.config.save.snapshot_every and epoch % run.config.save.snapshot_every == 0:
            self.weights.snapshot(epoch)
        self._keep_best(scores, mean)
        run.accelerator.wait_for_everyone()
        run.module.train()

    def _keep_best(self, scores: dict[str, float], mean: float) -> None:
        """Keep the weights with the best score, or with the least loss of an epoch."""
        run = self.run
        value = -mean if self.best_name == "loss" else scores.get(self.best_name)
        told = gather([value])[0]  # the main process evaluated, and decides
        if told is not None and told > run.progress.best:
            run.progress.best = told
            self.weights.write_best()

    def _probe(self, *, force: bool) -> None:
        if self.probe is None:
            return
        run = self.run
        result = self.probe(run.progress.step, epoch=run.epoch, force=force)
        if result is not None:
            run.accelerator.log(self.probe.summary, step=run.progress.step)

    def _tell(self) -> None:
        run = self.run
        if self.listener is None or not run.main:
            return
        loss = run.progress.recent[-1] if run.progress.recent else float("nan")
        self.listener(Update(run.progress.step, run.steps, run.epoch, loss, self.rate))

    def _measure_rate(self) -> float:
        """Images a second since the last line of metrics."""
        now, run = time.perf_counter(), self.run
        images = (run.progress.step - self.told_step) * run.config.loop.batch_size
        self.rate = round(images / max(now - self.told_at, 1e-9), 2)
        self.told_at, self.told_step = now, run.progress.step
        return self.rate

    def _write(self, kind: str, values: dict[str, Any]) -> None:
        run = self.run
        if run.main:
            self.journal.add(kind, run.progress.step, run.epoch, values)
        tracked = {f"{kind}/{name}": value for name, value in values.items()}
        run.accelerator.log(tracked, step=run.progress.step)

    def _facts(self, status: str) -> dict[str, Any]:
        return manifest.manifest(
            self.run, status=status, command=self.command, created=self.created
        )

    def note(self, status: str) -> None:
        """Write the manifest with how the run stands."""
        if self.run.main:
            text = json.dumps(self._facts(status), indent=2, ensure_ascii=False)
            outputs.put(self.run.out / outputs.MANIFEST, text.encode())

    def _start_trackers(self, resumed: int | None) -> None:
        run = self.run
        purge = {"tensorboard": {"purge_step": resumed + 1}} if resumed else {}
        run.accelerator.init_trackers("", init_kwargs=purge)

    def _state_size(self) -> int:
        run = self.run
        return states.size_of(run.plain, moments=2, averaged=run.ema is not None)

    def _check_room(self) -> None:
        size, keep = self._state_size(), self.run.config.save.keep
        states.check_room(self.run.out, needed=(keep + 2) * size, what="this run")

    def _gather(self) -> None:
        """Let every process know what each of them counted."""
        progress = self.run.progress
        progress.parts = gather([progress.part()])
        progress.broken = {i for part in gather([sorted(progress.broken)]) for i in part}

    def _opening(self, resumed: int | None) -> str:
        run = self.run
        where = f"{run.accelerator.num_processes} process(es) on {run.accelerator.device.type}"
        start = f"resumed after update {resumed}" if resumed else "from the beginning"
        left = len(run.pictures) - run.steps_per_epoch * run.config.loop.batch_size
        return (
            f"{run.objective.name} of {run.spec.architecture} on {len(run.pictures)} images: "
            f"{run.steps} updates of {run.config.loop.batch_size}, {where}, {start}"
            + (f"; {left} images are left out of each epoch, others each time" if left else "")
        )
