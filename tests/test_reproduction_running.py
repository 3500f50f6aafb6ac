"""Steps of a study side by side: order, skipping, failing, stopping, going on."""

import json
import subprocess
import sys
import time

import pytest

from attnprobe.errors import AttnprobeError
from attnprobe.reproduction import running
from attnprobe.reproduction.steps import Step

# a stand-in for a command: notes how it was called, and leaves a manifest
WORK = """
import json, pathlib, sys
out, how = pathlib.Path(sys.argv[1]), sys.argv[-1]
with (out.parent / "order.txt").open("a") as order:
    order.write(f"{out.name} {how}\\n")
out.mkdir(exist_ok=True)
"""
FINISH = "(out / 'manifest.json').write_text(json.dumps({'status': 'finished'}))\n"
FAIL = "sys.exit('the disk is full')\n"
STOPPABLE = """
import signal, time
def stop(*_):
    (out / 'manifest.json').write_text(json.dumps({'status': 'interrupted'}))
    sys.exit(130)
signal.signal(signal.SIGTERM, stop)
(out / 'started').touch()
time.sleep(60)
"""


def step(folder, name, needs=(), script=FINISH):
    out = folder / name
    return Step(name, (sys.executable, "-S", "-c", WORK + script, str(out)), out, tuple(needs))


def wait_for(path):
    until = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < until, path
        time.sleep(0.02)


def begun(folder):
    return [line.split()[0] for line in (folder / "order.txt").read_text().splitlines()]


@pytest.mark.parametrize("jobs", [1, 3])
def test_every_step_runs_once_and_after_what_it_needs(tmp_path, jobs):
    steps = [
        step(tmp_path, "compare", ["a-measured", "b-measured"]),
        step(tmp_path, "a-measured", ["a"]),
        step(tmp_path, "b-measured", ["b"]),
        step(tmp_path, "a"),
        step(tmp_path, "b"),
    ]
    told = []
    progress = running.run(
        steps, tmp_path / "logs", jobs=jobs, told=lambda one, _: told.append(one.name)
    )
    order = begun(tmp_path)
    assert sorted(order) == sorted(told) == sorted(one.name for one in steps)
    for one in steps:
        assert all(order.index(need) < order.index(one.name) for need in one.needs)
    assert progress.done == set(order) == set(progress.seconds)
    assert order[-1] == "compare"


def test_what_is_done_is_not_done_again(tmp_path):
    steps = [step(tmp_path, "a"), step(tmp_path, "b", ["a"])]
    running.run(steps[:1], tmp_path / "logs", jobs=1)
    progress = running.run(steps, tmp_path / "logs", jobs=1)
    assert begun(tmp_path) == ["a", "b"]
    assert list(progress.seconds) == ["b"]
    running.run(steps, tmp_path / "logs", jobs=1)
    assert begun(tmp_path) == ["a", "b"]


def test_a_failure_names_the_step_and_its_log_and_begins_nothing_more(tmp_path):
    steps = [step(tmp_path, "a", script=FAIL), step(tmp_path, "b", ["a"])]
    with pytest.raises(AttnprobeError, match="a ended with exit code 1: the disk is full") as told:
        running.run(steps, tmp_path / "logs", jobs=2)
    assert str(tmp_path / "logs" / "a.txt") in told.value.remedy
    assert begun(tmp_path) == ["a"]


def test_a_step_that_ends_well_but_leaves_nothing_has_failed(tmp_path):
    with pytest.raises(AttnprobeError, match="a ended with exit code 0"):
        running.run([step(tmp_path, "a", script="")], tmp_path / "logs", jobs=1)


@pytest.mark.parametrize("damage", ["{", "[1]", "", '{"status": "running"}'])
def test_a_half_written_output_is_made_again(tmp_path, damage):
    one = step(tmp_path, "a")
    one.out.mkdir()
    (one.out / "manifest.json").write_text(damage)
    running.run([one], tmp_path / "logs", jobs=1)
    assert json.loads((one.out / "manifest.json").read_text()) == {"status": "finished"}


def test_a_failure_lets_the_others_save_and_they_go_on_afterwards(tmp_path):
    waits = "import time\nwhile not (out.parent / 'long' / 'started').exists(): time.sleep(0.02)\n"
    steps = [step(tmp_path, "long", script=STOPPABLE), step(tmp_path, "a", script=waits + FAIL)]
    with pytest.raises(AttnprobeError, match="a ended with"):
        running.run(steps, tmp_path / "logs", jobs=2)
    held = json.loads((tmp_path / "long" / "manifest.json").read_text())
    assert held == {"status": "interrupted"}
    running.run([step(tmp_path, "long"), step(tmp_path, "a")], tmp_path / "logs", jobs=2)
    assert sorted(begun(tmp_path)) == ["a", "a", "long", "long"]


def test_an_interruption_stops_the_steps_and_passes_on(tmp_path):
    started = tmp_path / "long" / "started"

    def interrupted(one, progress):
        wait_for(started)
        raise KeyboardInterrupt

    steps = [step(tmp_path, "long", script=STOPPABLE), step(tmp_path, "a")]
    with pytest.raises(KeyboardInterrupt):
        running.run(steps, tmp_path / "logs", jobs=2, told=interrupted)
    held = json.loads((tmp_path / "long" / "manifest.json").read_text())
    assert held == {"status": "interrupted"}


def test_a_command_ends_with_the_one_who_began_it(tmp_path):
    one = step(tmp_path, "long", script=STOPPABLE)
    process = subprocess.Popen((*running.ATTENDED, *one.arguments()), stdin=subprocess.PIPE)
    wait_for(one.out / "started")
    process.stdin.close()  # as the death of its owner would
    assert process.wait(30) == 130
    assert json.loads((one.out / "manifest.json").read_text()) == {"status": "interrupted"}


def test_a_command_ended_by_a_signal_has_failed(tmp_path):
    killed = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n"
    with pytest.raises(AttnprobeError, match="exit code 137"):
        running.run([step(tmp_path, "a", script=killed)], tmp_path / "logs", jobs=1)
