"""Tables of what work costs: time, gradients, outcomes of killed work."""

from __future__ import annotations

from statistics import median
from typing import Any

from cells import Table, measured, ratio, table


def steps(found: dict[str, Any]) -> Table:
    """Cost of one step of the matched attack against a bare step."""
    about = found["tables"][0]
    caption = (
        "A step of the matched attack against a bare forward pass with its gradient for the image, which takes "
        f"{about['bare_ms']:.1f} ms here (MNIST's small network, batch {about['batch']}): ratio of medians, 95% "
        f"bootstrap interval. The baseline stands a second time as a measure of the noise. {measured(found)}"
    )
    return table(caption, ["contestant", "ratio"], [[row["loss"], ratio(row)] for row in about["rows"]])


def attacks(found: dict[str, Any]) -> Table:
    """Whole attacks of the same number of steps from the same start, against other packages."""
    rows: list[list[str]] = []
    for case in found["tables"][1:]:
        setting = f"{case['network']}, eps {case['eps']:g}, {case['steps']} steps"
        rows.append([setting, "advertorch, frozen", "1", f"{100 * case['robust']['advertorch']:.1f}"])
        rows += [["", row["loss"], ratio(row), f"{100 * row['robust']:.1f}"] for row in case["rows"]]
    n = ", ".join(sorted({str(case["n"]) for case in found["tables"][1:]}))
    caption = (
        "Projected ascent with the same steps from the image itself: time as a multiple of advertorch's with the "
        "network's weights frozen (ratio of medians, 95% bootstrap interval), and the share of "
        f"{n} images that it leaves. {measured(found)}"
    )
    return table(caption, ["network and budget", "attack", "time", "left (%)"], rows, joined=1)


def autoattack(found: dict[str, Any]) -> Table:
    """The suite ``adaptive`` against AutoAttack, and AutoAttack on what it left."""
    rows = []
    for case in found["table"]:
        middle = case["medians"]
        cells = [case["network"], case["threat"], *(f"{middle[name]:g}" for name in ("n", "autoattack_left"))]
        cells += [f"{middle['autoattack_s']:.1f}", f"{middle['ours_left']:g}", f"{median(case['ratios']):.3f}"]
        rows.append([*cells, f"{middle['ours_left'] - middle['after_left']:g}"])
    rounds = " to ".join(sorted({str(case["rounds"]) for case in found["table"]}))
    caption = (
        "Suite 'adaptive' against AutoAttack's standard version on networks for digits: images left, seconds of CPU, "
        f"and how many images AutoAttack breaks of those that ours left. Medians over rounds ({rounds}). "
        f"{measured(found)}"
    )
    columns = ["network", "threat", "images", "AutoAttack: left", "seconds", "ours: left", "time, as a share"]
    return table(caption, [*columns, "AutoAttack breaks then"], rows)


def optimality(found: dict[str, Any]) -> Table:
    """Local optimality of each attack on each network, and its mean."""
    rows: list[list[str]] = []
    for norm in dict.fromkeys(case["norm"] for case in found["table"]):
        cases = [case for case in found["table"] if case["norm"] == norm]
        for attack in cases[0]["optimality"]:
            each = [case["optimality"][attack] for case in cases]
            nearest, n = (sum(values) for values in zip(*((c["nearest"][attack], c["n"]) for c in cases), strict=True))
            cells = [f"{sum(each) / len(each):.3f}", f"{min(each):.3f}", f"{nearest} of {n}"]
            seconds = sum(case["seconds"][attack] for case in cases)
            rows.append(["" if rows and norm in (row[0] for row in rows) else norm, attack, *cells, f"{seconds:.0f}"])
    networks = ", ".join(dict.fromkeys(case["network"] for case in found["table"]))
    caption = (
        "Local optimality: the area above the curve of accuracy against eps, as a share of that of the pointwise best "
        f"of all attacks here; 1: none beats it on any image. Networks: {networks}; {found['table'][0]['n']} test "
        "images of each, all classified right. Nearest: images on which no attack found a point that lies nearer by "
        f"more than 0.1%. Seconds of CPU for all networks. {measured(found)}"
    )
    return table(caption, ["norm", "attack", "mean", "lowest", "nearest on", "seconds"], rows, joined=1)


def training(found: dict[str, Any]) -> Table:
    """Cost of a training step here against the bare step of the same network."""
    rows: list[list[str]] = []
    seen: set[str] = set()
    for row in found["rows"]:
        start = ["", ""] if row["setting"] in seen else [row["setting"], f"{row['baseline_us'] / 1000:.1f}"]
        seen.add(row["setting"])
        rows.append([*start, row["loss"], ratio(row)])
    caption = (
        "A training step against the bare forward pass, backward pass and update of the same network on a batch that "
        "lies ready: ratio of medians, 95% bootstrap interval; the goal of isce.training is "
        f"{found['goal']:.2f} at most. The baseline stands a second time as a measure of the noise; DataLoader is "
        f"torch's, which reads images one by one. {measured(found)}"
    )
    return table(caption, ["data:network", "bare step (ms)", "contestant", "ratio"], rows, joined=2)


def plan(found: dict[str, Any]) -> Table:
    """What the trainings of tiers B and C cost, on paper."""
    rows: list[list[str]] = []
    rate, assumed = found["assumed_tflops_per_second"], dict[str, float]()
    for row in found["rows"]:
        seconds, paper = row["cpu_seconds"], row["gpu_seconds_at_assumed_rate"]
        assumed[row["tier"]] = assumed.get(row["tier"], 0) + paper
        cells = [row["experiment"], row["tier"], str(row["trainings"]), f"{row['steps']:,}"]
        cells += [f"{row['flops'] / 1e15:.2f}", "unknown" if seconds is None else f"{seconds / 3600:.1f}"]
        measured = row["gpu_seconds"]
        rows.append([*cells, "not measured" if measured is None else f"{measured / 60:.1f}", f"{paper / 60:.2f}"])
    totals = ", ".join(f"tier {tier} {seconds / 60:.1f}" for tier, seconds in assumed.items())
    caption = (
        "What the trainings of tiers B and C cost, on paper. Operations (PFLOP, 1e15) are counted by torch for a step "
        "of each run, two for a multiplication with its addition, and taken times the images of all steps; hours are "
        "those of one CPU core by the measured time of a step, where there is one. The last column is no measurement: "
        f"it assumes a GPU that sustains {rate:g} TFLOP/s (in all: {totals} minutes). Attack runs and analyses come "
        "on top."
    )
    columns = ["experiment", "tier", "runs", "steps", "PFLOP", "CPU (h)", "GPU (min)", "assumed (min)"]
    return table(caption, columns, rows)


def threads(found: dict[str, Any]) -> Table:
    """Images per second of one run with one thread, one with many, and many with one."""
    settings = dict.fromkeys(row["setting"] for row in found["rows"])
    ways = dict.fromkeys((row["runs"], row["threads"]) for row in found["rows"])
    rates = {(row["setting"], row["runs"], row["threads"]): row["images_per_s"] for row in found["rows"]}
    rows = [[setting, *(f"{rates[setting, *way]:,.0f}" for way in ways)] for setting in settings]
    names = [f"{runs} run{'s' * (runs > 1)}, {threads} thread{'s' * (threads > 1)}" for runs, threads in ways]
    caption = (
        "Training images per second by the clock, of all runs together; medians of "
        f"{found['rounds']} measurements of {found['seconds']:g} s. {measured(found)}"
    )
    return table(caption, ["data:network", *names], rows)


def reliability(found: dict[str, Any]) -> Table:
    """Outcome of the tests that kill, fill and damage; a row has all cases of one sentence, but for numbers in it."""
    cases: dict[str, list[dict[str, Any]]] = {}
    for row in found["tests"]:
        said, _, case = row["test"].partition(" (")
        cases.setdefault(row["test"] if case.rstrip(")").isdigit() else said, []).append(row)
    rows = [
        [
            said,
            str(len(of)),
            ", ".join(sorted({row["outcome"] for row in of})),
            f"{sum(row['seconds'] for row in of):.0f}",
        ]
        for said, of in cases.items()
    ]
    passed = sum(row["outcome"] == "passed" for row in found["tests"])
    again = [row["again"] for row in found["tests"] if "again" in row]
    later = f" Run again at commit {', '.join(sorted({*again}))}: {len(again)}." if again else ""
    caption = (
        f"{passed} of {len(found['tests'])} tests passed; each sentence is what they prove. {measured(found)}{later}"
    )
    return table(caption, ["test", "cases", "outcome", "seconds"], rows)


def bounds(found: dict[str, Any]) -> Table:
    """Bounds on images of the small CNN: time and share proved."""
    rows = [[row["method"], f"{row['seconds_per_1000']:,.1f}", f"{100 * row['proved']:.1f}"] for row in found["proofs"]]
    by_interval = max(row["ratio"] for row in found["intervals"] if row["loss"] == "interval bounds")
    caption = (
        f"Proving {found['proofs'][0]['images']} MNIST images of small-cnn at eps 0.01, one thread. Interval bounds of "
        f"a batch take up to {by_interval:.1f} times a forward pass. {measured(found)}"
    )
    return table(caption, ["bound", "seconds for 1,000 images", "proved (%)"], rows)
