"""The loop: updates of one run, through accelerate, stoppable and resumable at every one."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attnprobe.datasets import Batches, loader
from attnprobe.errors import AttnprobeError
from attnprobe.objectives import Clock
from attnprobe.training import folder, guard, manifest, states
from attnprobe.training.assembly import Run, assemble
from attnprobe.training.backbones import settle
from attnprobe.training.config import TrainingConfig
from attnprobe.training.events import Listener, Outcome
from attnprobe.training.machine import accelerator_of, release
from attnprobe.training.seeds import seed_update
from attnprobe.training.stopping import StopRequest, on_signals
from attnprobe.training.watching import Watch

AGREE_EVERY = 10  # fast updates between two agreements of processes on stopping and saving


def train(
    config: TrainingConfig,
    out: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    trust: bool = False,
    listener: Listener | None = None,
    say: Callable[[str], None] = lambda text: None,
    command: str = "python",
) -> Outcome:
    """Train, or go on training, and leave a run folder.

    Args:
        config: What to train; see `attnprobe.training.config.configure`.
        out: The run's folder.
        resume: Go on from the newest saved state in it.
        overwrite: Replace an older run in it.
        trust: Let pickled code inside `init` run.
        listener: Called after every update, in the main process.
        say: Called with a sentence now and then, in the main process.
        command: What to record as the command.

    Raises:
        AttnprobeError: Something cannot be used, the loss diverged, or the disk is full.
    """
    config = settle(config)
    path = Path(out)
    again = folder.check(path, config, resume=resume, overwrite=overwrite)
    accelerator = accelerator_of(config, path)
    try:
        with _explained(config):
            run = assemble(config, path, accelerator, trust=trust)
        watch = Watch(run, listener=listener, say=say, command=command)
        with _claimed(run, again=again) as told, on_signals() as request:
            _begin(run, watch, again=again)
            status = _updates(run, watch, request, told)
        watch.end(status)
        outcome = _outcome(run, watch, status)
    finally:
        accelerator.end_training()
        release(accelerator)
    return outcome


def _outcome(run: Run, watch: Watch, status: str) -> Outcome:
    return Outcome(
        folder=run.out,
        status=status,
        step=run.progress.step,
        steps=run.steps,
        scores=watch.scores,
        broken=watch.broken_names(),
        processes=run.accelerator.num_processes,
        main=run.main,
    )


@contextmanager
def _explained(config: TrainingConfig) -> Iterator[None]:
    """Give what timm, torchvision and backbones raise at options that do not fit as one error."""
    try:
        yield
    except AttnprobeError:
        raise
    except Exception as error:
        raise AttnprobeError(
            f"{config.objective} cannot train {config.model.model} with these options "
            f"({type(error).__name__}: {error})",
            "change the option that this is about, or take another --model",
        ) from error


def _claimed(run: Run, *, again: bool) -> AbstractContextManager[Callable[[], None]]:
    """Make the folder in the main process; a run that cannot begin leaves it as it was."""
    if not run.main:
        return nullcontext(lambda: None)
    if again:
        manifest.check_images(run)
    return folder.claimed(run.out, run.config, again=again)


def _begin(run: Run, watch: Watch, *, again: bool) -> None:
    """Load the newest state of a run taken up again, and what is done beside the updates."""
    accelerator = run.accelerator
    accelerator.wait_for_everyone()  # for the folder
    resumed = states.load(accelerator, run.out) if again else None
    if again and resumed is None and run.main:
        watch.say("no state was saved before the interruption: beginning again")
    watch.begin(resumed)


def _updates(run: Run, watch: Watch, request: StopRequest, told: Callable[[], None]) -> str:
    """Run the updates that are left; returns finished or interrupted."""
    batches = micro_batches(run, start=run.progress.step)
    mix = run.objective.mix(run.config.options, run.framing) if run.objective.mix else None
    began, before = time.perf_counter(), run.progress.seconds
    run.module.train()
    first = run.progress.step
    for step in range(first, run.steps):
        with _explained(run.config) if step == first else nullcontext():
            run.progress.add(update(run, batches, step, mix))
        told()
        run.progress.step = step + 1
        run.progress.seconds = before + time.perf_counter() - began
        stop, over = _agree(run, request.asked, watch.minutes_over())
        stop = stop and step + 1 < run.steps
        with _noted(watch):
            watch.after_update(save=over or stop or watch.save_due())
        if stop:
            return "interrupted"
    return "finished"


@contextmanager
def _noted(watch: Watch) -> Iterator[None]:
    try:
        yield
    except guard.DivergedError:
        watch.note("diverged")
        raise


def update(
    run: Run, batches: Iterator[dict[str, Tensor]], step: int, mix: Any
) -> dict[str, Tensor]:
    """Do one update of the weights; returns its scalars, on the device."""
    accelerator, loop = run.accelerator, run.config.loop
    run.schedule.step_update(step)
    found: dict[str, Tensor] = {}
    for micro in range(loop.accumulate):
        batch = next(batches)  # before the seed: a new loader draws a number of its own
        clock = Clock(step, run.steps, micro)
        seed_update(loop.seed, clock, accelerator.process_index)
        with accelerator.accumulate(run.module):
            batch = mix(batch, clock) if mix else batch
            with accelerator.autocast():
                values = run.objective.step(run.module, batch, clock)
            accelerator.backward(values["loss"])
            if accelerator.sync_gradients:
                found["grad_norm"] = _clip(run)
            run.optimizer.step()
            run.optimizer.zero_grad()
        for name, value in values.items():
            part = value.detach().float() / loop.accumulate
            found[name] = found[name] + part if name in found else part
    if run.ema is not None:
        run.ema.update(run.objective.encoder(run.plain), step=step)
    return found


def micro_batches(
    run: Run, *, start: int, stop: int | None = None, workers: int | None = None
) -> Iterator[dict[str, Tensor]]:
    """Yield this process's parts of the batches from update `start` on, on the device."""
    accelerator, loop = run.accelerator, run.config.loop
    order = Batches(
        len(run.pictures),
        loop.batch_size,
        seed=loop.seed,
        start=start,
        stop=run.steps if stop is None else stop,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
        accumulate=loop.accumulate,
    )
    on_cuda = accelerator.device.type == "cuda"
    count = run.config.data.workers if workers is None else workers
    for batch in loader(run.dataset, order, workers=count, pin=on_cuda):
        guard.note_broken(run.progress, batch)
        yield {
            name: value.to(accelerator.device, non_blocking=on_cuda)
            for name, value in batch.items()
            if name != "broken"
        }


def _clip(run: Run) -> Tensor:
    """Limit the norm of the gradients and return it; without a limit only measure it."""
    limit = run.config.loop.clip_grad or float("inf")
    norm = run.accelerator.clip_grad_norm_(run.module.parameters(), limit)
    return torch.as_tensor(norm, device=run.accelerator.device).detach().float()


def _agree(run: Run, stop: bool, over: bool) -> tuple[bool, bool]:
    """Let all processes stop, or save by the clock, after the same update."""
    if run.accelerator.num_processes == 1:
        return stop, over
    slow = run.accelerator.device.type == "cpu" or run.config.loop.accumulate > 1
    if run.progress.step % AGREE_EVERY and not slow:
        return False, False
    asked = torch.tensor([float(stop), float(over)], device=run.accelerator.device)
    told: Any = run.accelerator.reduce(asked, reduction="sum")
    return bool(told[0] > 0), bool(told[1] > 0)
