"""What `attnprobe reproduce` does: plan, estimate, run, page."""

import os
from collections.abc import Sequence
from pathlib import Path

from attnprobe.cli import EXIT_INTERRUPTED
from attnprobe.cli._console import put_json, say

JOBS_ON_A_GPU = 5  # small models leave a device idle between their kernels


def run(
    data: str,
    val: str,
    budget: str,
    out: Path,
    *,
    methods: Sequence[str],
    seeds: int,
    epochs: int,
    jobs: int,
    workers: int,
    dry_run: bool,
    estimate: bool,
    page: bool,
    resume: bool,
    as_json: bool,
) -> int:
    """Plan and run a study; return the exit code."""
    import torch

    from attnprobe.reproduction import budgets, growing, reproducing

    changes = {"methods": methods, "seeds": seeds, "epochs": epochs}
    whole, held = budgets.load(budget), reproducing.under_way(out) if resume else None
    asked = growing.joined(whole, held, **changes) if held else budgets.narrowed(whole, **changes)
    study = reproducing.planned(data, val, out, asked)
    cores = os.cpu_count() or 1
    jobs = jobs or (JOBS_ON_A_GPU if torch.cuda.is_available() else 1)
    workers = max(cores // jobs - 1, 1) if workers < 0 else workers
    threads = 0
    if jobs > 1 and "OMP_NUM_THREADS" not in os.environ:  # each process would take all cores
        threads = max(cores // jobs // 2, 1)
        os.environ["OMP_NUM_THREADS"] = str(threads)
    if dry_run or estimate:
        for line in reproducing.estimated(study, jobs=jobs, threads=threads):
            say(line)
    if dry_run:
        return 0
    try:
        found = reproducing.reproduce(study, jobs=jobs, workers=workers, resume=resume, say=say)
    except KeyboardInterrupt:
        say("interrupted; what was under way saved its state: repeat the command with --resume")
        return EXIT_INTERRUPTED
    if page:
        _draw(out)
    if as_json:
        put_json(found)
    return 0


def _draw(out: Path) -> None:
    from attnprobe import study
    from attnprobe.report import studypage, write

    summary = study.summarise(study.load(out))
    study.save(summary)
    say(f"open {write(studypage.render(summary), out / 'report.html', overwrite=True)}")
