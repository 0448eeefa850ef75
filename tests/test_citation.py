"""CITATION.cff obeys its schema and names paper and journal version, each as the bibliography does."""

import re
import subprocess
import sys

import yaml

from isce.files import ROOT

PATH = ROOT / "CITATION.cff"
REFERENCES = yaml.safe_load(PATH.read_text(encoding="utf-8"))["references"]


def entry(key):
    """An entry of references.bib, its fields as text without braces."""
    text = (ROOT / "book" / "references.bib").read_text(encoding="utf-8")
    (body,) = re.findall(rf"^@\w+\{{{key},\n(.*?)^\}}$", text, flags=re.MULTILINE | re.DOTALL)
    return {name: value.strip("{}") for name, value in re.findall(r"^ *(\w+) *= \{(.*)\},?$", body, flags=re.MULTILINE)}


def test_it_obeys_the_schema():
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.citation-file-format", str(PATH)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_reference_is_one_work_as_the_bibliography_has_it():
    for reference, key in zip(REFERENCES, ("song2021isce", "song2022isce"), strict=True):
        known = entry(key)
        assert reference["title"] == known["title"]
        assert str(reference["year"]) == known["year"]
        assert reference.get("doi") == known.get("doi")
        assert reference.get("url") == known.get("url")
        names = [a["name"] if "name" in a else f"{a['family-names']}, {a['given-names']}" for a in reference["authors"]]
        assert " and ".join(names) == known["author"]
