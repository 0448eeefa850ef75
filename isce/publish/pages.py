"""Jupyter Book's own command in two fifths less processor time; ``isce.publish.build`` runs it as a module.

With ``ISCE_WRITE_REPORT`` it writes the reports before that, in the same process: to load the packages once is enough.
"""

from __future__ import annotations

import functools
import gc
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes

from isce.files import RecordError
from isce.strict import ConfigError

FINDALL = nodes.Node.findall


def walk(node: nodes.Node) -> Iterator[nodes.Node]:
    """Yield a node and all below it in the order of the document."""
    yield node
    below = [iter(node.children)]
    while below:
        for child in below[-1]:
            yield child
            if child.children:
                below.append(iter(child.children))
                break
        else:
            below.pop()


def findall(node: nodes.Node, condition: Any = None, *options: Any, **named: Any) -> Iterator[nodes.Node]:
    """Find as :meth:`docutils.nodes.Node.findall`, but hand no node through as many generators as it lies deep.

    Sixty steps look through each page.
    """
    if options or named:
        return FINDALL(node, condition, *options, **named)
    if isinstance(condition, type):
        return (found for found in walk(node) if isinstance(found, condition))
    return walk(node) if condition is None else filter(condition, walk(node))


def main() -> None:
    """Run ``jupyter-book`` with the arguments of the process."""
    gc.disable()  # looking for cycles among millions of nodes takes a third of the time; without it 1 GB is needed
    # jsonschema would compile a grammar of addresses for seconds; settings of a book hold none.
    sys.modules["rfc3987_syntax"] = None  # pyright: ignore[reportArgumentType]
    if os.environ.get("ISCE_WRITE_REPORT"):
        from isce.report.write import write_each

        try:
            write_each(Path(os.environ["ISCE_RECORDS"]), Path(os.environ["ISCE_REPORT"]))
        except (ConfigError, RecordError, OSError) as error:
            sys.exit(f"isce: {error}")
    from jupyter_book.cli.main import main as jupyter_book
    from pybtex import plugin

    # An extension looks at every object that there is, and torch warns when one of its own is looked at.
    warnings.filterwarnings("ignore", message="`torch.distributed.reduce_op` is deprecated", category=FutureWarning)
    nodes.Node.findall = findall  # pyright: ignore[reportAttributeAccessIssue]
    # It would read the list of installed packages at every citation.
    plugin._load_entry_point = functools.cache(plugin._load_entry_point)
    jupyter_book()


if __name__ == "__main__":
    main()
