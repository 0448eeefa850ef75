"""``python -m isce``: what the Makefile and the Snakefile call. ``--help`` lists the commands.

Each command imports what it needs when it is called: all rooms together take seconds, and a workflow starts many
commands. This module stands above all rooms, so no arrow is hidden.
"""

from __future__ import annotations

import argparse
import gc
import sys
from pathlib import Path
from typing import NoReturn

from isce.files import ROOT, RecordError
from isce.publish.build import Build
from isce.runs.home import use_writable_folders
from isce.strict import ConfigError


def _reproduce(options: argparse.Namespace) -> int:
    from isce.publish.reproduce import reproduce

    return reproduce(
        options.experiment,
        device=options.device,
        profile=options.profile,
        jobs=options.jobs,
        until=options.until,
        with_book=not options.no_book,
        dry_run=options.dry_run,
    )


def _run(options: argparse.Namespace) -> int:
    from isce.runs.execution import execute

    if options.device.startswith("cuda"):  # to see a GPU takes torch, and that seconds
        from isce.runs.devices import find_device

        find_device(options.device)
    # jsonschema, which papermill imports, would compile a grammar of addresses for seconds; notebooks hold none.
    sys.modules["rfc3987_syntax"] = None  # pyright: ignore[reportArgumentType]
    execute(options.kind, options.params, options.device)
    return 0


def _report(options: argparse.Namespace) -> int:
    gc.disable()  # to look for cycles takes a fifth of the time, and there are few
    from isce.report.write import write, write_each

    if not options.records.is_dir():
        raise ConfigError(
            f"no attack record of {options.experiment or 'any experiment'}: {options.records} is no folder"
        )
    if options.experiment is None:
        write_each(options.records, options.out)
    elif not write(options.experiment, options.records, options.out):
        raise ConfigError(f"no attack record of experiment {options.experiment!r} in {options.records}")
    return 0


def _build(options: argparse.Namespace) -> Build:
    return Build(options.source, options.report, options.records, options.out)


def _book(options: argparse.Namespace) -> int:
    print(f"book: {_build(options).render()}")
    return 0


def _links(options: argparse.Namespace) -> int:
    found = _build(options).links()
    for status, address, page in found:
        print(f"{status:<12} {address}  ({page})")
    broken = sum(status in ("broken", "timeout") for status, _, _ in found)
    print(f"{len(found)} links to other places, {broken} broken")
    return 1 if broken else 0


def _pdf(options: argparse.Namespace) -> int:
    from isce.publish import pdf  # needs packages that only the extra `book` installs

    pages = pdf.print_book(options.book.resolve(), options.out)
    print(f"pdf: {options.out}, {pages} pages")
    return 0


def _compare(options: argparse.Namespace) -> int:
    from isce.report.compare import compare

    lines, agree = compare(options.experiment, ROOT / "build" / "runs", options.results, options.all)
    print("\n".join(lines))
    return 0 if agree else 1


def _adopt(options: argparse.Namespace) -> int:
    from isce.publish.adoption import adopt

    done, every = adopt(options.experiment, ROOT / "build", options.results, options.partial)
    print(f"{done} of {every} records of {options.experiment} are now in {options.results}; commit them")
    return 0


def _export(options: argparse.Namespace) -> int:
    from isce.publish.checkpoints import export

    networks = export(options.experiments, ROOT / "build")["networks"]
    size = sum(about["bytes"] for about in networks.values()) / 1e6
    print(f"{len(networks)} networks are now in {ROOT / 'checkpoints'}, {size:.1f} MB; commit them")
    return 0


def _verify(options: argparse.Namespace) -> int:
    from isce.runs.verification import verify_run

    verdicts = verify_run(options.folder)
    for verdict in verdicts:
        print("\n".join(verdict.lines()))
    return 0 if all(verdict.holds for verdict in verdicts) else 1


def _prove(options: argparse.Namespace) -> int:
    from isce.runs.prove import prove

    found = prove(options.base, options.experiment, ROOT / "build" / "prove")
    for run, differs in found.items():
        print(f"{run:<30} {f'differs in {differs}' if differs else 'the same, byte for byte'}")
    return 1 if any(found.values()) else 0


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with the arguments, and leaves the usage to ``--help``."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"isce: {message} (see `{self.prog} --help`)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m isce", description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(required=True, metavar="command")

    def command(name: str, action: object, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(action=action)
        return added

    reproducing = command("reproduce", _reproduce, "run an experiment: train, attack, tabulate, build the book")
    reproducing.add_argument("--experiment", default="digits", help="a file of experiments/ (default: digits)")
    reproducing.add_argument("--jobs", type=_positive, help="parallel runs (default: cores, or as the profile says)")
    reproducing.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    reproducing.add_argument("--profile", default="local", help="a folder of workflow/profiles (default: local)")
    reproducing.add_argument("--dry-run", action="store_true", help="print what would run")
    reproducing.add_argument("--no-book", action="store_true", help="stop after the tables")
    reproducing.add_argument("--until", choices=["train"], help="stop after these runs; attack later, or elsewhere")
    run = command("run", _run, "execute one run's notebook")
    run.add_argument("kind", choices=["train", "attack", "minmax", "explain"])
    run.add_argument("params", type=Path)
    run.add_argument("--device", default="auto")
    reporting = command("report", _report, "numbers, tables and plots from records")
    reporting.add_argument("experiment", nargs="?", help="default: every experiment that has records")
    reporting.add_argument("--records", type=Path, required=True)
    reporting.add_argument("--out", type=Path, required=True)
    for name, action, text in (
        ("book", _book, "render the book from a report folder"),
        ("links", _links, "check the book's links to other places (needs a network)"),
    ):
        book = command(name, action, text)
        book.add_argument("--source", type=Path, default=ROOT / "book", help="default: the project's book")
        book.add_argument("--report", type=Path, required=True)
        book.add_argument("--records", type=Path, required=True, help="what the report was made from, to link to")
        book.add_argument("--out", type=Path, required=True)
    pdf = command("pdf", _pdf, "print the rendered book, through a headless Chromium or Chrome")
    pdf.add_argument("--book", type=Path, default=ROOT / "book" / "_build" / "html", help="its folder")
    pdf.add_argument("--out", type=Path, default=ROOT / "book" / "_build" / "isce.pdf")
    for name, action, text in (
        ("compare", _compare, "say whether own records agree with the committed ones, in headline numbers and claims"),
        ("adopt", _adopt, "copy own finished records to the committed ones"),
    ):
        added = command(name, action, text)
        added.add_argument("--experiment", default="digits")
        added.add_argument("--results", type=Path, default=ROOT / "results")
        if name == "compare":
            added.add_argument("--all", action="store_true", help="print every cell of every run, too")
        else:
            added.add_argument("--partial", action="store_true", help="adopt the runs that are done, keep the others")
    exporting = command("export", _export, "copy networks of own training runs to those that isce.load knows")
    exporting.add_argument("experiments", nargs="*", help="with none the repository's address alone is written anew")
    proving = command("prove", _prove, "run an experiment by a commit's code and by this code, and compare all bytes")
    proving.add_argument("--base", default="HEAD", help="the commit (default: HEAD, against which changes are made)")
    proving.add_argument("--experiment", default="quick")
    verify = command("verify", _verify, "judge the saved adversarial points of an attack run anew")
    verify.add_argument("folder", type=Path, help="such as build/runs/digits/attack/sce-s0")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, got {text}")
    return int(text)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code. Errors of input and files are one line, without a traceback."""
    options = _parser().parse_args(arguments)
    use_writable_folders(ROOT / "build" / "home")
    try:
        return int(options.action(options))
    except (ConfigError, RecordError, RuntimeError, OSError) as error:
        sys.stderr.write(f"isce: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
