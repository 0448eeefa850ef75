"""No result is typed in: digits and fractions in words stand in a role that reads records, or are facts named here."""

import re

import pytest

from isce.files import ROOT

PAGES = [
    *(ROOT / "book" / name for name in ("intro.md", "summary.md", "verdict.md", "faq.md", "discussion.md")),
    *sorted((ROOT / "book" / "experiments").glob("*.md")),
]
#: What may be said with digits: names, settings that experiment files state, and what a cited work says.
FACTS = [
    r"C[1-8]\b",
    r"CIFAR-10\b",
    r"PGD-(10|50|\d\d)\b",
    r"(Pre-activation )?ResNet-\d+",
    r"`[^`]*`",
    r"\d+/255( = 0\.\d+)?",
    r"95% intervals?",
    r"float(32|64)\b",
    r"m = [25]\b",
    r"\b0\b(?![.,]\d)",
    r"[Aa]t (half|a quarter)( of (it|the customary)|, )",  # of an eps
    r"28 by 28|32 by 32|8 by 8|8x8|\b(60|50|10),000( images| for testing)?|1,797( real)?",
]
#: Facts of single pages: what a source says, or a setting.
OWN = {
    "defences.md": [  # what the papers say, and settings
        r"on MNIST fell from 96% to 0\.5%",
        r"a competition of 2017\b",
        r"5% of the validation images",
        r"Half of each batch",
        r"above half the curvature",
        r"rejected clean images is 100%",
        r"100%, since every image",
        r"above 10%",
        r"Run these lines \(half a minute\)",
        r"falls? below half\b",
    ],
    "mnist.md": [
        r"rate of 0\.1\. Most others took six at 0\.02; MMC took six at 0\.003",
        r"ten epochs at 0\.05",
        r"\b63(?: \(percentage points, presumably\))?",
        r"50-step PGD",
        r"lowest rate, 0\.0025, no difference",
        r"At 0\.15 the terms",
    ],
    "adversarial_training.md": [r"At radius 2, on 100 images"],
    "summary.md": [r"radius 1\.58"],
    "intro.md": [r"at rate 0\.1, the others for six at 0\.02", r"all take ten at 0\.05"],
    "discussion.md": [r"at rate 0\.01 \(five epochs", r"at 0\.02 \(six epochs", r"at 0\.05 \(ten\)"],
    "faq.md": [r"\b63 \(percentage points, presumably\)", r"length 1\b"],
    "verdict.md": [r"at most 1% accuracy"],
    "digits.md": [r"17 grey levels", r"had left of 100 images"],
    "adversarial_training_full.md": [r"steps of 0\.01 for each update"],
    "cifar10_full.md": [r"20,000 iterations"],
    "gallery.md": [r"logits of norm 1\b", r"nearly 1 for everything", r"255 levels"],
    "region_seen.md": [r"Take half the distance between a class mean and the nearest other one as the unit"],
    "why.md": [r"multiplied by 10\b", r"0 or 1\b"],
    "why_full.md": [
        r"Pixels at 0 that",
        r"pixels at 1 that",
        r"stop at 0 or 1 on",
        r"a gap of about 17\b",
        r"a margin of about 37\b",
        r"rises to 1 again",
    ],
    "gap.md": [
        r"\b63 \(percentage points, presumably\)",
        r"\+63\b",
        r"50-step PGD",
        r"\b50 (untargeted steps|points or more)",
        r"margin is above about 16\b",
        r"within of 0 and 1\b",
        r"shows 63 points",
        r"give 50 or more",
        r"At radius 0\.3, where both",
        r"seeds? [02]( and 2)?\b",
        r"seed 1 the same",
    ],
    "gap_full.md": [r"\+63\b", r"within of 0 and 1\."],
    "variations.md": [r"to 0\.3, with its clip"],
    "released.md": [  # the settings of the authors' script
        r"linear embedding of 64\.",
        r"batches of (256\.|128)",
        r"momentum 0\.9",
        r"20,000 iterations",
        r"rate 0\.1, 0\.01 from half and 0\.001 from three quarters of them",
        r"Shifts of a tenth of the side",
        r"steps of 0\.01 or 0\.04 on",
        r"5 or 50 of them",
        r"at most 6\.4/255, 25\.5/255, 64/255",
        r"5,000 training images",
        r"epochs are of 45,000\.",
        r"fifty steps of 0\.04",
    ],
}


#: Half of something, a third, two fifths; not the third of a row.
FRACTION = (
    r"\b(?:half|halves|(?:an?|one|two|three|four|five|six|seven|eight|nine)\s+"
    r"(?:third|quarter|fifth|sixth|seventh|eighth|ninth|tenth)s?)\b"
)


def prose(text):
    """What a reader reads as sentences: no front matter, code, directives, roles, maths, link targets."""
    text = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
    text = re.sub(r"^\*\*\d\.\*\*", "", text, flags=re.MULTILINE)  # numbers of exercises
    text = re.sub(r"^(`{3,}|:{3,}).*?^\1\s*$", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"\{[a-z:-]+\}`[^`]*`", "", text)
    text = re.sub(r"\$\$.*?\$\$|\$[^$]*\$", "", text, flags=re.DOTALL)
    return re.sub(r"\]\([^)]*\)", "]", text)


def typed(page, text):
    """Digits and fractions of the prose that no fact explains, each with what stands around it."""
    for fact in [*OWN.get(page, []), *FACTS]:
        text = re.sub(fact.replace(" ", r"\s+"), "", text)
    return [
        text[max(0, found.start() - 30) : found.end() + 20]
        for found in re.finditer(rf"\d[\d.,]*|{FRACTION}", text, re.IGNORECASE)
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_number_of_the_results_is_typed_in(page):
    assert typed(page.name, prose(page.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "sentence",
    [
        "It keeps 73.4% of them.",
        "It fell by 12 points.",
        "Three of 200 images",
        "| sce | 42.8 |",
        "It keeps a fifth.",
        "Two\nthirds fall.",
        "More than half of the images stand.",
    ],
)
def test_a_typed_result_is_found(sentence):
    assert typed("mnist.md", prose(f"# Title\n\n{sentence}\n"))


def test_what_comes_from_records_or_stands_in_code_is_not_a_typed_result():
    text = (
        "It keeps {record}`mnist/sce.worst@0.1` of $m = 2$ [there](page2.md), at a quarter of it, in the third row.\n\n"
        "```{records-table} a/b2\n:optional:\n```\n"
    )
    assert typed("mnist.md", prose(text)) == []
