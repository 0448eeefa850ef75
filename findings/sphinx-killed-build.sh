#!/bin/sh
# Sphinx 7.4.7: a build killed while it writes pages can't be mended by repeating it. The next build writes only the
# pages that are missing, and says that the search index will be incomplete; the one after that says nothing and exits
# with 0, even under -W. All pages are there, but the search finds nothing on most of them, and never will without a
# full build.
#
# Seen in November 2026, Python 3.11, x86-64 Linux:
#   second build: exit code 1, 9 of 9 pages, 4 in the search index; WARNING: search index couldn't be loaded, but not
#       all documents will be built: the index will be incomplete.
#   third build: exit code 0, 9 of 9 pages, 4 in the search index;
#   seen: the second build warns
#   seen: the third is silent, the index as short

. "$(dirname "$0")/_venv.sh"
venv sphinx==7.4.7
mkdir source
cat > source/conf.py <<'PY'
import os
import signal


def killed_here(app, page, *rest):
    if os.environ.get("KILLED_AT") == page:
        os.kill(os.getpid(), signal.SIGKILL)


def setup(app):
    app.connect("html-page-context", killed_here)
PY
printf 'Title\n=====\n\n.. toctree::\n\n' >source/index.rst
for i in 1 2 3 4 5 6 7 8 9; do
    echo "   page$i" >>source/index.rst
    printf 'Page %s\n======\n\nword%s\n' "$i" "$i" >"source/page$i.rst"
done
KILLED_AT=page6 sphinx-build -q source html >log 2>&1 && exit 1
for build in second third; do
    code=0
    sphinx-build -q -W --keep-going source html >log 2>&1 || code=$?
    pages=$(find html -name 'page*.html' | wc -l)
    indexed=$(grep -o '"docnames": *\[[^]]*\]' html/searchindex.js | grep -o '"page[0-9]"' | wc -l)
    echo "$build build: exit code $code, $pages of 9 pages, $indexed in the search index; $(cat log)" | tee "$build"
done
see "the second build warns" grep -q 'code 1, 9 of 9 pages, 4 in the search index; WARNING' second
see "the third is silent, the index as short" grep -q 'code 0, 9 of 9 pages, 4 in the search index; $' third
