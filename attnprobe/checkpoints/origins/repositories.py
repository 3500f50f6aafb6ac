"""`hf:OWNER/REPO[@revision][:file]`: weights and their configuration from a model hub.

Only weights and the three small files that describe them are fetched: no code, no pages.
"""

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import constants, errors

from attnprobe.catalogue.records import HUB
from attnprobe.checkpoints.origins import network
from attnprobe.checkpoints.reading.weightfiles import SUFFIXES
from attnprobe.errors import CheckpointError

COMPANIONS = ("config.json", "preprocessor_config.json", "open_clip_config.json")
_INDEX = ".index.json"
# in the order in which they are taken; * stands for any text
_WEIGHTS = (
    *("model.safetensors", "model.safetensors.index.json"),
    *("pytorch_model.bin", "pytorch_model.bin.index.json"),
    *("open_clip_*.safetensors", "open_clip_pytorch_model.bin"),
)
_SOURCE = re.compile(
    r"hf:(?P<repo>[\w][\w.-]*/[\w][\w.-]*)(@(?P<revision>[^:@\s]+))?(:(?P<file>[^:\s]+))?"
)
_LARGEST_INDEX = 64 * 2**20


@dataclass(frozen=True)
class Wanted:
    """What a source asks for.

    Attributes:
        repo: OWNER/REPO.
        revision: Branch, tag or commit.
        file: The one file that is asked for, or nothing.
    """

    repo: str
    revision: str = "main"
    file: str = ""

    @property
    def source(self) -> str:
        """The source that names just this."""
        return f"{HUB}{self.repo}@{self.revision}{f':{self.file}' if self.file else ''}"


def parse(source: str) -> Wanted:
    """Return what a source asks for.

    Raises:
        CheckpointError: It is not written so.

    >>> parse("hf:google/vit-base-patch16-224@main:model.safetensors").file
    'model.safetensors'
    """
    found = _SOURCE.fullmatch(source)
    if found is None:
        raise CheckpointError(
            f"{source!r} names no repository", "write hf:OWNER/REPO, hf:OWNER/REPO@REVISION:FILE"
        )
    file = found["file"] or ""
    parts = file.split("/")
    if file and (not {"", ".", ".."}.isdisjoint(parts) or not _holds_weights(file)):
        raise CheckpointError(
            f"{source!r} names no weights",
            f"name a file that ends in {', '.join(SUFFIXES)} or {_INDEX}",
        )
    return Wanted(found["repo"], found["revision"] or "main", file)


def _holds_weights(file: str) -> bool:
    return file.endswith((*SUFFIXES, *(f"{suffix}{_INDEX}" for suffix in SUFFIXES)))


def fetch(source: str) -> tuple[Path, str]:
    """Return the local file of a source, or its index of shards, and the source with its commit.

    What describes the weights lies beside them.

    Raises:
        CheckpointError: The repository or file cannot be had, or holds no weights.
    """
    wanted = parse(source)
    if not network.reachable(constants.ENDPOINT):
        return _from_cache(wanted, network.reason(constants.ENDPOINT))
    try:
        return _from_hub(wanted)
    except CheckpointError:
        raise
    except Exception as error:  # the hub's client fails in any way
        raise _refusal(wanted, error) from error


def _from_hub(wanted: Wanted) -> tuple[Path, str]:
    api = huggingface_hub.HfApi(endpoint=constants.ENDPOINT)
    info = api.model_info(wanted.repo, revision=wanted.revision, timeout=10)
    known = [item.rfilename for item in info.siblings or ()]
    chosen = _chosen(wanted, known)
    folder = chosen.rpartition("/")[0]
    within = f"{folder}/" if folder else ""
    # by the revision, not its commit: only so the cache knows it without a network
    path = _download(wanted, chosen)
    beside = [name for name in COMPANIONS if within + name in known]
    others = [_download(wanted, within + name) for name in (*beside, *_shards(path))]
    if any(other.parent != path.parent for other in others):
        raise CheckpointError(f"{wanted.source} changed while it was fetched", "fetch it again")
    return path, replace(wanted, revision=_commit(wanted, path)).source


def _commit(wanted: Wanted, path: Path) -> str:
    return path.relative_to(_cached(wanted.repo) / "snapshots").parts[0]


def _download(wanted: Wanted, file: str) -> Path:
    return Path(
        huggingface_hub.hf_hub_download(
            wanted.repo,
            file,
            revision=wanted.revision,
            cache_dir=constants.HF_HUB_CACHE,
            endpoint=constants.ENDPOINT,
        )
    )


def _chosen(wanted: Wanted, known: Collection[str]) -> str:
    """Return the file to take of those that a repository has."""
    if wanted.file:
        if wanted.file in known:
            return wanted.file
        raise CheckpointError(f"{wanted.repo} has no {wanted.file}", _others(wanted, known))
    for pattern in _WEIGHTS:
        whole = re.escape(pattern).replace(r"\*", "[^/]*")
        found = sorted(name for name in known if re.fullmatch(whole, name))
        if found:
            return found[0]
    raise CheckpointError(
        f"{wanted.repo} has none of {', '.join(_WEIGHTS)}", _others(wanted, known)
    )


def _others(wanted: Wanted, known: Collection[str]) -> str:
    found = [name for name in sorted(known) if _holds_weights(name)]
    if not found:
        return "it holds no weights that torch or numpy can read: name another repository"
    return f"name one of its files: {', '.join(f'hf:{wanted.repo}:{name}' for name in found[:4])}"


def _shards(path: Path) -> Sequence[str]:
    """Return the files that an index names, which lie in its own folder."""
    if not path.name.endswith(_INDEX):
        return ()
    try:
        if path.stat().st_size > _LARGEST_INDEX:
            raise ValueError("it is too large")
        table: Any = json.loads(path.read_text(encoding="utf-8"))
        names = sorted(set(table["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path} is no index of shards: {error}", "ask the authors of the repository"
        ) from error
    wrong = [name for name in names if not isinstance(name, str) or _leads_away(name)]
    if wrong:
        raise CheckpointError(
            f"{path} names {wrong[0]!r} as a shard, which is no plain file name",
            "do not trust this repository",
        )
    return names


def _leads_away(name: str) -> bool:
    return not re.fullmatch(r"\w[\w.-]*", name) or not name.endswith(SUFFIXES)


def _from_cache(wanted: Wanted, why: str) -> tuple[Path, str]:
    """Return what an earlier run left in the hub's cache."""
    commit = _cached_commit(wanted)
    folder = _cached(wanted.repo) / "snapshots" / commit
    known = [str(item.relative_to(folder).as_posix()) for item in folder.rglob("*")]
    if not commit or not known:
        raise _unreachable(wanted, why)
    try:
        path = folder / _chosen(wanted, known)
    except CheckpointError as error:
        raise _unreachable(wanted, why) from error
    missing = [name for name in _shards(path) if not (path.parent / name).exists()]
    if missing:
        raise _unreachable(wanted, f"{why}, and its cache lacks {', '.join(missing[:4])}")
    return path, replace(wanted, revision=commit).source


def _cached(repo: str) -> Path:
    return Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"


def _cached_commit(wanted: Wanted) -> str:
    """Return the commit that a revision meant when it was last looked up."""
    reference = _cached(wanted.repo) / "refs" / wanted.revision
    if reference.is_file():
        return reference.read_text().strip()
    return wanted.revision if re.fullmatch(r"[0-9a-f]{40}", wanted.revision) else ""


def _unreachable(wanted: Wanted, why: str) -> CheckpointError:
    name = wanted.repo.rpartition("/")[2]
    file = wanted.file or "model.safetensors"
    return CheckpointError(
        f"{wanted.source} cannot be fetched: {why}",
        f"on a connected machine download {file} and config.json of {wanted.repo}, place them in "
        f"./{name}/ and give the path ./{name}/{file.rpartition('/')[2]}",
    )


def _refusal(wanted: Wanted, error: Exception) -> CheckpointError:
    remedy = "try again; or download its weights by hand and give their path"
    cause = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
    if isinstance(error, errors.GatedRepoError):
        cause = "its authors give it only to those who accept their terms"
        remedy = "accept them on its page, then log in with `hf auth login`"
    elif isinstance(error, errors.RevisionNotFoundError):
        cause, remedy = f"it has no revision {wanted.revision}", "name a branch, tag or commit"
    elif isinstance(error, errors.RepositoryNotFoundError):
        cause = "the hub has no such repository, or it is private"
        remedy = "check the name; log in with `hf auth login` if it is yours"
    return CheckpointError(f"{wanted.source} cannot be fetched: {cause}", remedy)
