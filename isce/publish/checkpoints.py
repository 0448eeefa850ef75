"""Networks of own finished training runs become those that come with the project: files, and a manifest of hashes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from isce.files import ROOT, sha256, write_atomic
from isce.publish.adoption import done
from isce.runs import records
from isce.runs.experiment import load_experiment
from isce.runs.run import planned_runs
from isce.runs.whole import CHECKPOINT
from isce.training import shipped


def export(names: list[str], build: Path, root: Path = ROOT) -> dict[str, Any]:
    """Copy the network of each training run, and write the manifest that :func:`isce.load` reads.

    The network is the one that attack runs attack, after the last epoch. The experiment's former networks go; those of
    other experiments stay. The manifest takes the repository's address from ``book/_config.yml``.

    Args:
        names: of experiments; with none the address alone is written anew.
        build: the build folder, with own runs.
        root: the project's folder.

    Returns:
        The manifest, see :func:`isce.training.shipped.read_manifest`.

    Raises:
        isce.strict.ConfigError: unknown experiment, or a training run that is not finished, current and whole.
    """
    config = yaml.safe_load((root / "book" / "_config.yml").read_text(encoding="utf-8"))
    manifest = root / "isce" / "training" / shipped.MANIFEST.name
    networks = shipped.read_manifest(manifest)["networks"] if manifest.is_file() else {}
    plans = {name: [run for run in planned_runs(load_experiment(name)) if run.kind == "train"] for name in names}
    for runs in plans.values():  # all, before the first is copied
        done(runs, build)
    for name, runs in plans.items():
        networks = {network: about for network, about in networks.items() if network.partition("/")[0] != name}
        target = root / "checkpoints" / name
        for run in runs:
            folder = build / "runs" / run.folder
            file, record = folder / CHECKPOINT, records.read(folder / "record.json")
            write_atomic(target / f"{run.name}.safetensors", file.read_bytes())
            networks[f"{name}/{run.name}"] = {
                "sha256": sha256(file),
                "bytes": file.stat().st_size,
                "key": record.key,
                "commit": record.provenance.commit,
                "attacked": _committed(root / "results" / run.folder) == record.files[CHECKPOINT],
            }
        for path in target.glob("*.safetensors"):
            if f"{name}/{path.stem}" not in networks:
                path.unlink()
    found = {"repository": config["repository"]["url"].removesuffix("/").removesuffix(".git"), "networks": networks}
    write_atomic(manifest, json.dumps(found, indent=1, sort_keys=True) + "\n")
    return found


def _committed(folder: Path) -> str | None:
    """Hash of the network that the committed records are about; None where there is no such record."""
    path = folder / "record.json"
    return records.read(path).files[CHECKPOINT] if path.is_file() else None
