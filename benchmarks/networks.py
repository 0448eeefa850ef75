"""Tables of what attacks leave of networks that one question is asked of."""

from __future__ import annotations

import math
from statistics import mean, stdev, variance
from typing import Any

from cells import Table, measured, table

from isce.report.key import split_run
from isce.report.names import reader_name

MOST = 12  #: rows of the largest gaps
PENALTIES = (2, 8, 32, 256)  #: rows of the table ``wrm``


def gap(found: dict[str, Any]) -> Table:
    """The largest gap between I-SCE and SCE for each network and what is ascended, by whose label is asked for."""
    rows = []
    for network, loss in dict.fromkeys((each["network"], each["loss"]) for each in found["gaps"]):
        cells = [reader_name(network), _ascended(loss)]
        for labels, judged in (("true", "last"), ("predicted", "last"), ("predicted, SCE true", "last"), (None, "all")):
            best = _largest(found, network=network, loss=loss, labels=labels, judged=judged)
            cells.append(f"{best['gap']:+.1f}, left {best['left']:+.1f} ({_bounds(best)})")
        rows.append(cells)
    caption = (
        "Accuracy of I-SCE minus that of SCE after 50 steps, in points. Shown is the largest over the balls and sizes "
        "of step that were tried, which stand in brackets in pixel values; 'left' is the gap of the worst cases in "
        "that ball. The first three columns of gaps judge the last point, by whose label the attack's loss is about; "
        f"the fourth counts an image as fallen at any point on the way. First seed, {found['images']} test images. "
        f"{measured(found)}"
    )
    columns = ["network", "ascends", "true label", "predicted label", "predicted label on I-SCE alone", "any point"]
    return table(caption, columns, rows, joined=1)


def precision(found: dict[str, Any]) -> Table:
    """Accuracy by the last point in float32 and in float64, of every way that was run in both."""
    ways: dict[tuple[Any, ...], dict[bool, int]] = {}
    for row in found["rows"]:
        way = tuple(row[key] for key in ("network", "loss", "label", "eps", "size", "steps", "seed"))
        ways.setdefault(way, {})[row["double"]] = row["last"]
    rows = []
    for (network, loss, label, eps, size, steps, _), both in ways.items():
        if len(both) == 2:
            single, double = (100 * both[key] / found["images"] for key in (False, True))
            cells = [reader_name(network), _ascended(loss), label, f"{eps:g}, {size:g}", str(steps)]
            rows.append([*cells, f"{single:.1f}", f"{double:.1f}"])
    caption = (
        "Accuracy (%) by the last point, of attacks that compute in float32 and in float64. "
        f"{found['images']} test images. {measured(found)}"
    )
    columns = ["network", "ascends", "label", "radius, step", "steps", "float32", "float64"]
    return table(caption, columns, rows, joined=1)


def mechanisms(found: dict[str, Any]) -> Table:
    """The ways with the largest gaps, with both networks' accuracies, and the worst case in the same ball."""
    kinds = ("network", "loss", "labels")
    best = [
        _largest(found, judged="last", **dict(zip(kinds, kind, strict=True)))
        for kind in dict.fromkeys(tuple(each[key] for key in kinds) for each in found["gaps"])
    ]
    rows = []
    for each in sorted(best, key=lambda each: -each["gap"])[:MOST]:
        same = {key: each[key] for key in (*kinds, "eps", "size", "double", "steps", "judged")}
        others = [row["gap"] for row in found["gaps"] if same.items() <= row.items() and row["seed"] != each["seed"]]
        cells = [reader_name(each["network"]), _ascended(each["loss"]), each["labels"], _bounds(each)]
        cells += [f"{each[key]:.1f}" for key in ("isce", "sce")] + [f"{each['gap']:+.1f}"]
        cells.append(", ".join(f"{gap:+.1f}" for gap in others) or "not run")
        rows.append([*cells, *(f"{each[key]:.1f}" for key in ("worst isce", "worst sce")), f"{each['left']:+.1f}"])
    caption = (
        f"The {len(rows)} largest gaps after 50 steps, by the last point; one row for each network, function and "
        "label. Accuracies in per cent, gaps in points; the worst case is within the ball that the steps can't leave. "
        f"{found['images']} test images."
    )
    columns = ["network", "ascends", "label", "radius, step", "I-SCE", "SCE", "gap", "gap, seed 2"]
    return table(caption, [*columns, "worst case: I-SCE", "worst case: SCE", "gap left"], rows)


def numbers(found: dict[str, Any]) -> dict[str, str]:
    """What the page about the gap says in its sentences, on the first seed, judged by the last point."""
    tried = [each for each in found["gaps"] if _first(found).items() <= each.items() and each["judged"] == "last"]
    large = [each for each in tried if each["gap"] >= 50]
    plain = [each for each in tried if each["loss"] != "clipped SCE"]
    own = {"network": "isce-m10", "loss": "training", "labels": "predicted, SCE true", "judged": "last"}
    alone = _largest(found, **own)
    texts = {"tried": str(len(tried)), "large": str(len(large)), "images": str(found["images"])}
    texts["largest"] = f"{max(each['gap'] for each in tried):+.1f}"
    known = [each for each in plain if each["network"] != "isce-m10"]
    texts |= {"large-left": f"{max((each['left'] for each in large), default=math.nan):+.1f}"}
    for name, labels in (("true", "true"), ("predicted", "predicted")):
        texts[name] = f"{max(each['gap'] for each in known if each['labels'] == labels):+.1f}"
    texts |= {f"alone-{key}": f"{alone[key]:.1f}" for key in ("isce", "sce")}
    texts |= {f"alone-{key}": f"{alone[key]:+.1f}" for key in ("gap", "left")}
    for network in ("isce-m2", "isce-m10"):
        best = _largest(found, network=network, loss="clipped SCE", labels="true", judged="last")
        texts |= {f"{network}-{key}": f"{best[key]:.1f}" for key in ("isce", "sce")}
        texts |= {f"{network}-{key}": f"{best[key]:+.1f}" for key in ("gap", "left")}
    first = found["gaps"][0]["seed"]
    still = {r["network"]: r["still"] for r in found["rows"] if (r["loss"], r["seed"]) == ("clipped SCE", first)}
    texts |= {f"{network}-still": f"{100 * of / found['images']:.1f}%" for network, of in still.items()}
    lasting = max(tried, key=lambda each: each["left"])
    texts |= {f"lasting-{key}": f"{lasting[key]:.1f}" for key in ("worst isce", "worst sce", "eps")}
    texts |= {"lasting-left": f"{lasting['left']:+.1f}", "lasting-network": reader_name(lasting["network"])}
    m2, code = (_largest(found, **own | {"network": name}) for name in ("isce-m2", "isce-released"))
    texts |= {f"m2-alone-{key}": f"{m2[key]:.1f}" for key in ("isce", "sce")}
    texts |= {"m2-alone-gap": f"{m2['gap']:+.1f}", "code-alone-gap": f"{code['gap']:+.1f}"}
    pairs: dict[Any, list[int]] = {}
    for row in found["rows"]:
        if (row["loss"], row["label"]) == ("training", "true"):
            way = tuple(row[key] for key in ("network", "seed", "label", "eps", "size", "steps"))
            pairs.setdefault(way, []).append(row["last"])
    apart = max(abs(pair[0] - pair[1]) for pair in pairs.values() if len(pair) == 2)
    return texts | {"precision": f"{100 * apart / found['images']:.1f}"}


def _first(found: dict[str, Any]) -> dict[str, Any]:
    """What holds for the gaps after 50 steps on the first seed."""
    return {"steps": 50, "seed": found["gaps"][0]["seed"]}


def _largest(found: dict[str, Any], **which: Any) -> dict[str, Any]:
    """The largest gap after 50 steps on the first seed, of those with these values (None: any)."""
    wanted = _first(found) | {key: of for key, of in which.items() if of is not None}
    return max((each for each in found["gaps"] if wanted.items() <= each.items()), key=lambda each: each["gap"])


def _ascended(loss: str) -> str:
    """What an attack on the gap ascends, as a reader sees it."""
    named = {"training": "training loss", "clipped SCE": "clipped probabilities", "raw SCE": "SCE of the raw logits"}
    return named.get(loss, loss.replace("out, ", "script's outputs, "))


def _bounds(gap: dict[str, Any]) -> str:
    radius = "no ball" if gap["eps"] is None else f"{gap['eps']:g}"
    return f"{radius}, {gap['size']:g}{', float64' if gap['double'] else ''}"


def wrm(found: dict[str, Any]) -> Table:
    """The certificate of WRM at some penalties, its condition as far as it was seen, and what attacks reach there."""
    rows = []
    for network in found["rows"]:
        for each in (each for each in network["gammas"] if each["gamma"] in PENALTIES):
            cells = [network["network"], f"{each['gamma']:g}", f"{each['seen']:.1f}", "yes" if each["holds"] else "no"]
            bound = each["value"] + each["gamma"] * each["cost"]
            rows.append([*cells, *(f"{of:.3g}" for of in (each["value"], each["cost"], bound, each["attack"]))])
    least = ", ".join(f"{row['network']} {row['bend'] / 2:,.0f}" for row in found["rows"])
    caption = (
        "Certificate of WRM at some penalties, estimated, beside the largest mean loss of attacks at the same mean "
        "squared distance. The bound holds if no curvature of the loss exceeds 2 gamma. The fourth column says whether "
        "that is so of all Hessians computed, at the images and at the points found with this penalty or a larger one, "
        f"which is no proof; where it says no, attacks may lie above. phi is what {found['steps']} ascent steps found "
        f"of the inner maximum. Proved to be enough at all points are only these penalties: {least}. "
        f"{found['images']} test images of digits, elu-cnn, one seed; "
        f"points may leave [0, 1]. {measured(found)}"
    )
    columns = ["network", "gamma", "largest curvature seen", "at most 2 gamma", "mean phi", "rho", "bound at rho"]
    return table(caption, [*columns, "attacks at rho"], rows)


def transport(found: dict[str, Any]) -> Table:
    """Mean loss at each mean squared distance: reached by attacks, estimated bound, proved bound."""
    rows = []
    for network in found["rows"]:
        for each in network["rhos"]:
            cells = [None if each[key] is None else f"{each[key]:.4g}" for key in ("attack", "bound", "proved")]
            rows.append([network["network"], f"{each['rho']:g}", *(cell or "none" for cell in cells)])
    caption = (
        "Mean loss at a mean squared distance from the images: what attacks reach, and two bounds. The estimated bound "
        "is the least of gamma rho + mean phi over the penalties that fulfil the condition as far as was seen; the "
        "proved one follows from the norms of the layers."
    )
    return table(caption, ["network", "mean squared distance", "attacks", "estimated bound", "proved bound"], rows)


def rates(found: dict[str, Any]) -> Table:
    """Worst case of each network by loss and learning rate, one number a seed."""
    rows = []
    for network, rate in dict.fromkeys((row["network"], row["rate"]) for row in found["rows"]):
        of = [row for row in found["rows"] if (row["network"], row["rate"]) == (network, rate)]
        trained = [row for row in of if not row["failed"]]
        share = 100 / found["images"]
        cells = [reader_name(network), f"{rate:g}"]
        cells += [", ".join(f"{share * row['clean']:.1f}" for row in trained) or "none trained"]
        cells += [", ".join(f"{share * row['worst'][f'{eps:g}']:.1f}" for row in trained) for eps in found["eps"]]
        cells += [", ".join(f"{row[key]:.3g}" for row in trained) for key in ("margin", "slope")]
        rows.append([*cells, str(len(of) - len(trained))])
    caption = (
        "Each loss at each learning rate, all else equal: accuracy and worst case in per cent, one number a training "
        f"seed. Margin and slope are medians over test images. {found['images']} test images. {measured(found)}"
    )
    columns = ["network", "rate", "clean", *(f"worst case at {eps:g}" for eps in found["eps"]), "margin", "slope"]
    return table(caption, [*columns, "not trained"], rows, joined=1)


def learnt(found: dict[str, Any]) -> dict[str, str]:
    """Mean worst case over seeds of each loss and rate that trained, at 0.1 and 0.15, and the number of images."""
    texts, left = {"images": str(found["images"])}, dict[str, list[float]]()
    for row in found["rows"]:
        for eps, suffix in (("0.1", ""), ("0.15", "-at-0.15")) if not row["failed"] else ():
            name = f"{row['network']}-{row['rate']:g}{suffix}"
            left.setdefault(name, []).append(100 * row["worst"][eps] / found["images"])
    return texts | {name: f"{mean(of):.1f}%" for name, of in left.items()}


def processors(found: dict[str, Any]) -> Table:
    """Worst case of the same seeds on each processor, with the deviation over seeds."""
    rows, share = [], 100 / found["rows"][0]["images"]
    first = {row["seed"]: row for row in reversed(found["rows"])}
    for place in dict.fromkeys((row["processor"], row["threads"]) for row in found["rows"]):
        of = [row for row in found["rows"] if (row["processor"], row["threads"]) == place]
        left = [share * row["left"] for row in of]
        same = sum(row["sha256"] == first[row["seed"]]["sha256"] for row in of)
        apart = max(share * abs(row["left"] - first[row["seed"]]["left"]) for row in of)
        cells = [f"{mean(left):.1f}", f"{stdev(left):.1f}", f"{min(left):.1f} to {max(left):.1f}"]
        rows.append([place[0], str(place[1]), *cells, f"{same} of {len(of)}", f"{apart:.1f}"])
    caption = (
        f"SCE on digits, the same seeds on each processor: accuracy in the worst case at eps {found['eps']:g} in per "
        f"cent. The last two columns compare each seed with its network of the first row. {measured(found)}"
    )
    columns = ["processor", "threads", "mean", "deviation over seeds", "range", "same bits", "largest change"]
    return table(caption, columns, rows)


def scatter(found: dict[str, Any]) -> dict[str, str]:
    """How far networks are apart: those of different seeds on one processor, and those of one seed on different ones.

    Root mean square deviations, unbiased, in points.
    """
    share = 100 / found["rows"][0]["images"]
    by_place, by_seed = dict[Any, list[float]](), dict[Any, list[float]]()
    for row in found["rows"]:
        by_place.setdefault((row["processor"], row["threads"]), []).append(share * row["left"])
        by_seed.setdefault(row["seed"], []).append(share * row["left"])
    spread = {"seeds": by_place, "processors": by_seed}
    texts = {name: f"{math.sqrt(mean(variance(each) for each in of.values())):.1f}" for name, of in spread.items()}
    largest = max(max(each) - min(each) for each in by_seed.values())
    return texts | {"networks": str(len(by_seed)), "places": str(len(by_place)), "largest": f"{largest:.1f}"}


def nearest(found: dict[str, Any]) -> Table:
    """What `nearest` breaks of the images that all attacks of a record left, by network."""
    rows = [
        [reader_name(label), seed, str(row["left"]), str(row["broken"])]
        for row in sorted(found["table"], key=lambda row: row["run"])
        for label, seed in [split_run(row["run"])]
    ]
    caption = (
        f"MNIST at eps {found['table'][0]['eps']:g}: images of {found['table'][0]['n']:,} that every attack of the "
        f"record left, and those of them that nearest with {found['steps']} steps breaks. {measured(found)}"
    )
    return table(caption, ["network", "seed", "left", "broken"], rows)


def nearest_numbers(found: dict[str, Any]) -> dict[str, str]:
    """Most images that `nearest` breaks of one loss, in sentences."""
    texts: dict[str, str] = {}
    for row in found["table"]:
        label, _ = split_run(row["run"])
        texts[label] = str(max(row["broken"], int(texts.get(label, 0))))
    return texts | {"steps": str(found["steps"])}


def cw(found: dict[str, Any]) -> dict[str, str]:
    """Images that C&W leaves at each learning rate, in sentences."""
    left = {f"{split_run(each['run'])[0]}-{each['rate']:g}": str(each["left"]) for each in found["cases"]}
    return left | {"images": str(found["images"])}


def mixup(found: dict[str, Any]) -> Table:
    """What attacks on some of the pixels leave with and without mixup, one number a seed."""
    share, rows = 100 / found["images"], []
    for alpha in dict.fromkeys(row["alpha"] for row in found["rows"]):
        of = [row for row in found["rows"] if row["alpha"] == alpha]
        cells = ["SCE" if alpha is None else f"SCE + mixup, alpha {alpha:g}", [share * row["clean"] for row in of]]
        cells += [[share * row["left"][pixels] for row in of] for pixels in ("all", "black", "others")]
        cells += [[100 * row["slope"] for row in of], *([100 * row["seen"][at] for row in of] for at in ("0.1", "0.2"))]
        rows.append([cell if isinstance(cell, str) else ", ".join(f"{one:.1f}" for one in cell) for cell in cells])
    caption = (
        f"MNIST, {found['images']} test images: accuracy (%) clean, and after {found['steps']} steps of PGD on the "
        f"margin that may move all pixels by {found['eps']:g}, those alone that are 0, or the others alone. Then, in "
        "per cent: the share of the margin's gradient on pixels that are 0, and the mean probability of a second digit "
        f"that is mixed in with a weight of 0.1 or 0.2. One number for each training seed. {measured(found)}"
    )
    columns = ["network", "clean", "all pixels", "black alone", "others alone", "gradient on black"]
    return table(caption, [*columns, "second digit at 0.1", "at 0.2"], rows)


def mixed(found: dict[str, Any]) -> dict[str, str]:
    """Mean over seeds of what attacks on some of the pixels leave, in sentences."""
    texts = {"images": str(found["images"]), "steps": str(found["steps"])}
    for alpha in dict.fromkeys(row["alpha"] for row in found["rows"]):
        of, name = [row for row in found["rows"] if row["alpha"] == alpha], "sce" if alpha is None else f"{alpha:g}"
        for pixels in ("all", "black", "others"):
            left = mean(row["left"][pixels] for row in of)
            texts[f"{name}-{pixels}"] = f"{100 * left / found['images']:.1f}%"
        texts[f"{name}-slope"] = f"{100 * mean(row['slope'] for row in of):.0f}%"
        texts[f"{name}-seen"] = f"{100 * mean(row['seen']['0.2'] for row in of):.1f}%"
    return texts
