"""The paper's claims C1 to C8 in words: each with the rule that judges it and what differs from the paper."""

from __future__ import annotations

from dataclasses import dataclass

REPORTED = 0.63  # the journal version's abstract: I-SCE over SCE on MNIST under untargeted PGD-50
COST = 1.05  # times that of SCE: what a training step may cost
REPORTS = {"C8": f"+{100 * REPORTED:g} points (the journal version's abstract)"}


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, the rule that judges it, and what differs from the paper."""

    text: str
    rule: str
    differs: str


CLAIMS = {
    "C1": Claim(
        "SCE fits but is vulnerable: clean and adversarial features are misaligned",
        "SCE loses at least half of its clean accuracy in the worst case at the largest eps, and the scatter of its "
        "embeddings between classes, over that within, is lower for adversarial images than for clean ones.",
        "which features and distance the paper means is not known",
    ),
    "C2": Claim(
        "losses that only separate the classes are limited in robustness",
        "Each of the losses that separate classes loses at least half of its clean accuracy in the worst case at the "
        "largest eps. Not testable where they and every I-SCE are at the floor there.",
        "we could not obtain the paper's versions of these losses",
    ),
    "C3": Claim(
        "inference information gives inter-class separability",
        "The scatter of the clean embeddings between classes over that within is larger than for SCE, by the interval "
        "over seeds.",
        "a measure of ours; the records hold no interval over images",
    ),
    "C4": Claim(
        "I-SCE generalises better to adversarial examples",
        "Worst-case accuracy above SCE's at the main eps. Beside it stands the difference under the paper's kind of "
        "attack, PGD-50 on the training loss, with its own verdict.",
        "we could not obtain the paper's network and budgets",
    ),
    "C5": Claim(
        "I-SCE is robust in the min-max framework",
        "On all but 5% of the images the I-SCE loss at the m that was trained is at least the largest cross-entropy "
        "that an attack reached within the largest eps of the analysis: the cross-entropy that min-max training would "
        "minimise. This is our statement, and a stronger one: where it fails the paper's is not testable.",
        "the paper's statement is not known to us; attacked by ascent, so that the true maximum is at least as large",
    ),
    "C6": Claim(
        "I-SCE is superior to the state of the art under strong adaptive attacks",
        "Worst-case accuracy at the main eps above that of every other loss and defence, each of which has a number; "
        "contradicted if the best of them is above it. Not testable where neither a loss that separates classes nor a "
        "defence is there: against SCE alone it is C4.",
        "worst case over every attack here, not the paper's choice; which others it is compared with is ours",
    ),
    "C7": Claim(
        "I-SCE is extremely easy to implement",
        f"A training step costs at most {COST:g} times that of SCE, by the 95% interval. Not testable where it was not "
        "measured.",
        "the cost of a step is our addition to the claim, and not ease; one machine, the text version alone",
    ),
    "C8": Claim(
        "on MNIST 63 points over SCE under untargeted PGD-50",
        f"At some eps accuracy is at least {100 * REPORTED:g} points above SCE's under untargeted PGD-50 on the "
        f"training loss; contradicted if both intervals end below at every eps that can tell. Where SCE has over "
        f"{100 - 100 * REPORTED:g}% with every seed no loss can reach it, and where both are at the floor nothing can "
        "be seen. As eps and network of the claim are not known to us, contradicted says no more than: not reproduced.",
        "its eps and network are not stated where we could read it: not reproduced at these eps with these networks",
    ),
}
