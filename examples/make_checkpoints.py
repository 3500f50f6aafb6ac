"""Put the encoders of a study in the box: half precision, and a card that says how to retrain.

    attnprobe reproduce -d cifar10_train.npz --val cifar10_test.npz --budget cpu -o study
    python examples/make_checkpoints.py study examples/checkpoints --prefix vit_mini_cifar10

writes PREFIX_METHOD.safetensors, .toml (the configuration that trains it) and .md for the first
seed of each method that is finished. The accuracy of a head is measured on the file itself.
"""

import argparse
import json
import tomllib
from pathlib import Path
from typing import Any

import pandas as pd
import timm
import tomlkit
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from attnprobe import load, traininglog
from attnprobe.datasets import open_pictures, open_set
from attnprobe.images.decoding import normalise
from attnprobe.traininglog import TrainingRun

METHODS = {
    "simmim": ("pretrain simmim", "masked image modelling with SimMIM, without labels"),
    "mae": ("pretrain mae", "masked image modelling with MAE, without labels"),
    "mocov3": ("pretrain mocov3", "contrastive learning with MoCo v3, without labels"),
    "supervised": ("train supervised", "classification, with labels"),
}
SCORES = {
    "knn": "kNN top-1, frozen",
    "linear": "linear probe top-1, frozen",
    "own": "own head top-1",
}
LICENCE = "MIT, like attnprobe; the images are not part of it"
CURVE = 12  # rows of the logged curve


def halved(source: Path, target: Path) -> dict[str, Any]:
    """Write the weights in half precision; return the card in the file."""
    with safe_open(source, "pt") as file:
        card = json.loads(file.metadata()["attnprobe"])
    weights = {name: value.half() for name, value in load_file(source).items()}
    wrong = [name for name, value in weights.items() if not bool(torch.isfinite(value).all())]
    if wrong:
        raise SystemExit(f"{source}: {wrong[0]} does not fit half precision")
    card["name"] = target.stem
    save_file(weights, target, {"attnprobe": json.dumps(card)})
    target.chmod(0o644)
    return card


def top1(path: Path, card: dict[str, Any], val: str) -> float:
    """Return the accuracy of a file's own head on held-out images, its arithmetic in fp32."""
    model = timm.create_model(card["architecture"], **card["model_args"]).eval()
    weights = {name: value.float() for name, value in load_file(path).items()}
    model.load_state_dict(weights, strict=True)
    spec, labels = load(path).spec, torch.tensor(open_pictures(val, split="val").labels)
    right = done = 0
    with torch.inference_mode():
        for batch in open_set(val, spec=spec).batches(500):
            guess = model(normalise(batch.pixels, spec)).argmax(1)
            right += int((guess == labels[done : done + len(guess)]).sum())
            done += len(guess)
    if done != len(labels):
        raise SystemExit(f"{val}: {len(labels) - done} images could not be read")
    return right / done


def configuration(run: TrainingRun, name: str) -> str:
    """Return the configuration, its files as they are called wherever they lie."""
    held = tomllib.loads(run.config_text)
    held["data"]["data"], held["data"]["val"] = (
        Path(held["data"][key]).name for key in ("data", "val")
    )
    held["watch"]["probe_images"] = held["data"]["val"]
    held["save"]["name"] = name
    return tomlkit.dumps(held)


def card_text(
    run: TrainingRun, method: str, card: dict[str, Any], scores: dict[str, str], device: str
) -> str:
    """Return the model card."""
    name, (command, title) = card["name"], METHODS[method]
    table = "".join(
        f"| {key} | {value} |\n" for key, value in rows(run, card, scores, device).items()
    )
    curve = run.scalars.dropna(subset=["loss"])
    curve = curve.iloc[:: max(len(curve) // CURVE, 1)]
    losses = "".join(
        f"| {step:.0f} | {epoch:.2f} | {loss:.4f} |\n"
        for step, epoch, loss in zip(curve.step, curve.epoch, curve.loss, strict=True)
    )
    return f"""# {name}

A small vision transformer, trained from scratch by {title}. It is a
sample: small enough to ship, so that every command can be tried, and models be compared, without a
download. It was trained briefly and is far from what its architecture can reach on this data.

| | |
|---|---|
{table}
## Retrain

    attnprobe {command} --config {name}.toml -o {name}

in a folder with `cifar10_train.npz` and `cifar10_test.npz` gives the same weights to the bit on the
same kind of device with the same versions and `OMP_NUM_THREADS=1`; [{name}.toml]({name}.toml)
is the whole recipe. The test images chose nothing: these are the last weights. The loss it logs:

| step | epoch | loss |
|---|---|---|
{losses}"""


def rows(
    run: TrainingRun, card: dict[str, Any], scores: dict[str, str], device: str
) -> dict[str, str]:
    """Return the facts of a card."""
    facts, data = run.manifest, run.manifest["data"]
    arguments = ", ".join(f"{key}={value}" for key, value in card["model_args"].items())
    architecture = f"timm `{card['architecture']}`, `{arguments}`"
    seconds = f"{facts['seconds']:.0f} of wall clock, {device or facts['device']}"
    return {
        "architecture": f"{architecture}; {facts['model']['parameters']:,} parameters to train",
        "data": f"JPEG re-encoded CIFAR-10: {data['images']:,} images to train, sha256 of "
        f"{data['hashed']} `{data['sha256']}`",
        **scores,
        "epochs": f"{facts['epochs']} ({facts['steps']:,} steps of {facts['batch_size']} images)",
        "seconds": f"{seconds}, {facts['precision']}, beside other work",
        "seed": str(run.config["loop"]["seed"]),
        "format": "safetensors, float16, timm's names; the metadata key `attnprobe` holds the "
        "preprocessing",
        "versions": ", ".join(f"{key} {value}" for key, value in facts["versions"].items()),
        "licence": LICENCE,
    }


def main() -> None:
    """Convert the first seed of every method of a study."""
    parser = argparse.ArgumentParser(description="Put the encoders of a study in the box.")
    parser.add_argument("study", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--prefix", default="vit_mini_cifar10")
    parser.add_argument("--device", default="", help="The device in words, for the cards.")
    given = parser.parse_args()
    found = pd.read_csv(given.study / "scores.csv")
    for method in METHODS:
        folder = given.study / "trainings" / f"{method}-seed0"
        run = traininglog.load(folder) if traininglog.is_run(folder) else None
        if run is None or run.manifest["status"] != "finished":
            print(f"{method}: not finished, left out")
            continue
        target = given.out / f"{given.prefix}_{method}.safetensors"
        card = halved(folder / "checkpoint.safetensors", target)
        own = found[(found.method == method) & (found.seed == 0) & (found.dropped == 0)]
        scores = {
            SCORES[name]: f"{100 * value:.2f} %"
            for name, value in zip(own.score, own.value, strict=True)
            if name in SCORES
        }
        if "own" in set(own.score):
            share = top1(target, card, run.config["data"]["val"])
            scores[SCORES["own"]] = f"{100 * share:.2f} % (float16 weights, float32 arithmetic)"
        target.with_suffix(".toml").write_text(configuration(run, target.stem))
        target.with_suffix(".md").write_text(card_text(run, method, card, scores, given.device))
        print(f"{target}: {target.stat().st_size:,} bytes, {scores}")


if __name__ == "__main__":
    main()
