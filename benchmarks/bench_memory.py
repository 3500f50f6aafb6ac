"""Section memory: peak memory against the number of tokens, and where each way runs out of it.

ViT-B/16 from 224 to 1024 px, 197 to 4,097 tokens; every number comes from a process of its own.
Beyond the loaded model is what the run needs beside weights and images. The pair loop stops after
the first layer: AttentionExtract holds all maps by then, so the peak is behind it.
"""

from collections.abc import Iterator
from typing import Any

from _child import measured_apart
from _common import BARE, Settings, bare, build, pictures
from _peers import extract
from _rows import Row, gate, row

ANALYZE, EXTRACT = "analyze: all but cka", "AttentionExtract and pair loop"
PROVIDERS = (BARE, ANALYZE, EXTRACT)
METRICS = ("distance", "entropy", "head_kl", "prefix_mass")
PATCH = 16
CASES = {  # title, timm's name, depth, sizes in px
    "full": ("ViT-B/16", "vit_base_patch16_224", 12, (224, 384, 512, 768, 1024)),
    "quick": ("ViT-B/16", "vit_base_patch16_224", 12, (224,)),
    "toy": ("ViT-Ti/16", "vit_tiny_patch16_224", 2, (64,)),
}


def run(settings: Settings) -> Iterator[list[Row]]:
    """Yield the rows of one size after the other."""
    gate(settings.device)
    title, name, depth, sizes = CASES[settings.size]
    for size in sizes:
        tokens = (size // PATCH) ** 2 + 1
        batch = settings.batch or 1
        made = []
        for provider in PROVIDERS:
            options = {"img_size": size, "depth": depth}
            job = {"provider": provider, "name": name, "options": options, "batch": batch}
            found = measured_apart("memory", job, settings)
            case = f"{title} at {size} px, {tokens} tokens"
            about = {"section": "memory", "case": case, "provider": provider}
            made += peaks(found, about | {"images": batch, "batch": batch}, settings)
        yield with_ratios(made)


def peaks(found: Any, about: dict[str, Any], settings: Settings) -> list[Row]:
    """Return both quantities of one process, or that it failed."""
    limit = "" if settings.cuda else f" with {settings.memory:g} GiB beyond the model"
    quantities = {"beyond the imports": found.whole, "beyond the loaded model": found.beyond}
    if found.failed:
        note = found.failed + limit
        return [row(settings, **about, quantity=f"peak memory {q}", note=note) for q in quantities]
    return [
        row(settings, **about, quantity=f"peak memory {q}", value=value / 2**20, unit="MiB")
        for q, value in quantities.items()
    ]


def with_ratios(made: list[Row]) -> list[Row]:
    """Write the ratio to the bare pass into each row: one process each, so no quartiles."""
    floors = {row["quantity"]: row["value"] for row in made if row["provider"] == BARE}
    for found in made:
        if found["value"] != "" and floors.get(found["quantity"]):
            found["ratio"] = float(f"{found['value'] / floors[found['quantity']]:.5g}")
    return made


def alone(job: dict[str, Any], settings: Settings) -> tuple[object, object]:
    """Return the model and images of a job, and what to call."""
    model = build(job["name"], settings, **job["options"])
    batch, module = job["batch"], model.module
    images = pictures(model, batch)
    calls = {
        BARE: lambda: bare(module, images, batch, settings),
        ANALYZE: lambda: settings.analyze(model, images, metrics=METRICS, batch_size=batch),
        EXTRACT: lambda: extract(module, images, batch, settings, layers=1),
    }
    return (model, images), calls[job["provider"]]
