"""What the paper says, each statement with the quantity and the limit that it is judged by.

Quantities are those of `attnprobe.claims`; that of entropy is made here, like the one of distance.
What masked models are said *not* to do is judged by the same quantity, on the other side of the
same limit.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from attnprobe import claims
from attnprobe.claims import Claim, Quantity, Thresholds
from attnprobe.claims._spread import spread
from attnprobe.results import Result
from attnprobe.study import accuracies, judging
from attnprobe.study.folder import Study
from attnprobe.study.judging import Judgement
from attnprobe.study.relating import relation
from attnprobe.study.settings import METHODS

PAIR = ("simmim", "supervised")
MIM, CONTROL = ("simmim", "mae"), ("supervised", "mocov3")
LITTLE = 0.01  # of accuracy: one percentage point
PAPER = "Xie et al. 2023"
BESIDE = "not in Xie et al. 2023; linear probing of He et al. 2022"


@dataclass(frozen=True)
class Statement:
    """One statement of the paper.

    Attributes:
        key: Identifier.
        topic: What it is about; statements of one topic stand together.
        says: The statement, in a sentence.
        place: Where it is made.
        rule: When it holds.
        judge: Judges it.
    """

    key: str
    topic: str
    says: str
    place: str
    rule: str
    judge: Callable[[Study], Judgement]


def statements() -> list[Statement]:
    """Return every statement, by topic."""
    return [*_locality(), *_focus(), *_diversity(), *_layers(), *_dropping(), *_accuracy()]


def _spread_of_entropy(result: Result, thresholds: Thresholds) -> Quantity | str:
    """Return the spread of entropy over the heads of each layer, as a part of uniform's."""
    del thresholds
    return spread(result, "entropy")


FOCUSED_AND_BROAD = Claim(
    name="focused_and_broad",
    title="Focused and broad heads together",
    needs=("entropy",),
    statement="{a} keeps focused and broad heads together in every layer",
    versus="{a} keeps focused and broad heads together more than {b} in its last layers",
    quantity="standard deviation over a layer's heads of attention entropy, as a part of uniform "
    "attention's, above {focus:g}",
    versus_quantity="spread of head entropy as a part of uniform attention's, mean of the last "
    "third of the layers",
    limit="focus",
    thresholds={"focus": 0.1},
    below=False,
    measure=_spread_of_entropy,
)


@dataclass(frozen=True)
class _About:
    """A topic, and where the paper speaks of it."""

    topic: str
    place: str

    def alone(self, claim: Claim, method: str, says: str) -> Statement:
        """Return a statement about one method: a claim's quantity against the claim's limit."""
        rule = claim.quantity.format(**{"last": 3} | claim.thresholds)
        rule = rule.replace("last 3 layers", "last layers (three; of shallow models a third)")
        judge = partial(judging.alone, claim=claim, method=method)
        if method in MIM:
            judge = partial(judging.beside, claim=claim, method=method, control=PAIR[1])
        return self.own(f"{claim.name}-{method}", says, rule, judge)

    def between(self, claim: Claim, methods: tuple[str, str], says: str) -> Statement:
        """Return a statement about two methods: the difference of a claim's quantity."""
        side = "below" if claim.below else "above"
        rule = f"{claim.versus_quantity}: {_less(methods)}, {side} 0"
        judge = partial(judging.between, claim=claim, methods=methods)
        return self.own(f"{claim.name}-{'-'.join(methods)}", says, rule, judge)

    def more(self, score: str, methods: tuple[str, str], limit: float, says: str) -> Statement:
        """Return a statement about the difference of two methods' accuracies."""
        rule = f"accuracy: {_less(methods)}, above {limit:g}"
        judge = partial(accuracies.more, score=score, methods=methods, limit=limit)
        return self.own(f"{score}-{'-'.join(methods)}", says, rule, judge)

    def own(self, key: str, says: str, rule: str, judge: Callable[[Study], Judgement]) -> Statement:
        """Return a statement with a rule of its own."""
        return Statement(key, self.topic, says, self.place, rule, judge)


def _locality() -> Iterator[Statement]:
    about = _About("Locality", f"{PAPER}, abstract; averaged attention distance")
    local, both, turns = map(claims.load, ("local_everywhere", "local_and_global", "turns_global"))
    for method in MIM:
        yield about.alone(local, method, f"{METHODS[method]} is local in every layer.")
    for method in MIM:
        says = f"{METHODS[method]} has local heads beside global ones in every layer."
        yield about.alone(both, method, says)
    for method in CONTROL:
        says = f"{_subject(method)} is local in its first layers and global in its last."
        yield about.alone(turns, method, f"{says[:1].upper()}{says[1:]}")
    yield about.between(local, PAIR, "SimMIM is more local than the supervised model.")
    says = "In its last layers SimMIM keeps local heads beside global ones, more than the "
    yield about.between(both, PAIR, f"{says}supervised model.")


def _focus() -> Iterator[Statement]:
    about = _About("Focus", f"{PAPER}, entropy of attention")
    for method in MIM:
        says = f"{METHODS[method]} has focused heads beside broad ones in every layer."
        yield about.alone(FOCUSED_AND_BROAD, method, says)
    says = "In its last layers SimMIM keeps focused heads beside broad ones, more than the "
    yield about.between(FOCUSED_AND_BROAD, PAIR, f"{says}supervised model.")


def _diversity() -> Iterator[Statement]:
    about = _About("Head diversity", f"{PAPER}, abstract; divergence between heads")
    collapses = claims.load("diversity_collapses")
    for method in MIM:
        says = f"{METHODS[method]} keeps its head diversity to the last layers."
        yield about.alone(_other_side(collapses), method, says)
    for method in CONTROL:
        says = f"The head diversity of {_subject(method)} nearly vanishes in its last layers."
        yield about.alone(collapses, method, says)
    says = "The supervised model loses more of its head diversity than SimMIM."
    yield about.between(collapses, (PAIR[1], PAIR[0]), says)


def _layers() -> Iterator[Statement]:
    about = _About("Layers alike", f"{PAPER}, CKA between layers")
    alike = claims.load("layers_alike")
    for method in MIM:
        yield about.alone(alike, method, f"The low and high layers of {METHODS[method]} are alike.")
    says = "The low and high layers of the supervised model differ."
    yield about.alone(_other_side(alike), "supervised", says)
    says = "The layers of SimMIM are more alike than those of the supervised model."
    yield about.between(alike, PAIR, says)


def _dropping() -> Iterator[Statement]:
    there = "fine-tuning without last layers, there on tasks of weak semantics, here on classes"
    about = _About("Last blocks dropped", f"{PAPER}, abstract; {there}")
    each = "for each number of dropped blocks, accuracy without them less that with all"
    yield about.own(
        "drop-supervised",
        "Dropping the supervised model's last blocks before fine-tuning costs little or helps.",
        f"{each}, above -{LITTLE:g}",
        lambda study: accuracies.drop_costs_little(study, "supervised", -LITTLE),
    )
    yield about.own(
        "drop-simmim",
        "Dropping SimMIM's last blocks before fine-tuning costs accuracy.",
        f"{each}, below -{LITTLE:g}",
        lambda study: accuracies.drop_costs(study, "simmim", -LITTLE),
    )
    yield about.own(
        "drop-simmim-supervised",
        "Dropping the last blocks costs SimMIM more than the supervised model.",
        f"accuracy lost by dropping the most blocks: {_less(PAIR)}, above 0",
        lambda study: accuracies.costs_more(study, PAIR),
    )
    yield about.own(
        "diversity-drop",
        "Last blocks without head diversity are worth little: the more is kept, the more "
        "dropping them costs.",
        "correlation over runs, within methods, of the diversity kept in the last layers with the "
        "accuracy lost by dropping the most blocks, above 0",
        lambda study: relation(study, claims.load("diversity_collapses"), study.settings["drops"]),
    )


def _accuracy() -> Iterator[Statement]:
    about = _About("Accuracy", f"{PAPER}, abstract; fine-tuning on classification")
    says = "Fine-tuned, SimMIM is competitive with the supervised model."
    yield about.more("finetuned", PAIR, -LITTLE, says)
    frozen = _About("Accuracy of frozen features", BESIDE)
    for method in CONTROL:
        for score, words in (("knn", "kNN"), ("linear", "linear probe")):
            says = f"features of {_subject(method)} separate classes better than SimMIM's"
            yield frozen.more(score, (method, "simmim"), 0.0, f"Frozen {says} ({words}).")


def _other_side(claim: Claim) -> Claim:
    """Return the claim that the quantity lies on the other side of its limit."""
    told = {True: ("below {", "above {"), False: ("above {", "below {")}[claim.below]
    return replace(claim, below=not claim.below, quantity=claim.quantity.replace(*told))


def _subject(method: str) -> str:
    """Return a method inside a sentence."""
    return "the supervised model" if method == "supervised" else METHODS[method]


def _less(methods: tuple[str, str]) -> str:
    return " less ".join(METHODS[method] for method in methods)
