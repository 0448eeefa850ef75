"""The page on libraries lists every finding, with the versions that its script is about, and names tests that exist."""

import re

from isce.files import ROOT

PAGE = (ROOT / "book" / "reference" / "libraries.md").read_text(encoding="utf-8")
SCRIPTS = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "findings").glob("[a-z]*.sh")}
#: What the project does not install: the tool of which Binder chooses the version, and packages that readers may use.
OUTSIDE = {
    "adv-lib==0.2.8",
    "adversarial-robustness-toolbox==1.20.1",
    "attackbenchlib==2.0.2",
    "captum==0.9.0",
    "cleverhans==4.0.0",
    "deel-torchlip==1.0.5",
    "deeprobust==0.2.11",
    "imagecorruptions==1.1.2",
    "jupyter-repo2docker==2026.4.0",
    "netcal==1.4.0",
    "orthogonium==0.0.4",
    "robustness==1.2.1.post2",
    "scikit-image==0.25.2",
    "secml-torch==1.5",
    "setuptools==80.9.0",
    "timm==1.0.9",
    "torch-uncertainty==0.13.0",
    "torchattack==1.7.2",
    "torchattacks==3.5.1",
    "torchcp==1.2.1",
    "torchmetrics==1.9.0",
    "uncertainty-calibration==0.1.4",
}
#: Each section's packages with their versions, lower case, and the scripts that its rows name.
SECTIONS = {
    heading.lower(): set(re.findall(r"\| `([a-z0-9-]+)` \|$", text, flags=re.MULTILINE))
    for heading, text in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, flags=re.DOTALL | re.MULTILINE)
}


def test_every_finding_has_a_row_and_every_row_a_finding():
    assert set.union(*SECTIONS.values()) == set(SCRIPTS)


def test_versions_are_those_that_the_scripts_install():
    for heading, names in SECTIONS.items():
        for package, number in re.findall(r"([\w-]+) (\d[\w.]*)", heading):
            assert any(f"{package}=={number}" in SCRIPTS[name] for name in names)


def test_versions_are_those_that_the_project_was_tested_with():
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8").lower().splitlines()
    for script in SCRIPTS.values():
        pins = re.findall(r"[\w-]+==[\w.]+", script)
        assert pins
        assert all(pin in lock or pin in OUTSIDE for pin in pins)


def test_tests_that_the_page_names_exist():
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    named = re.findall(r"`(test_\w+)`", PAGE)
    assert named
    assert all(f"def {name}(" in tests for name in named)
