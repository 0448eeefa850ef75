#!/bin/sh
# jupyter-book 1.0.4.post1: `jupyter-book build` exits with 0 although a notebook raised; the page shows the traceback
# as if that were its output, and ends there. -W makes an error of it, but only in the build that runs the notebook:
# after one build without, -W finds the page up to date and exits with 0 as well, until --all.
#
# Seen in November 2026, Python 3.11, x86-64 Linux:
#   jupyter-book build : exit code 0
#   seen: the page shows ZeroDivisionError
#   seen: the cell after it was not run
#   jupyter-book build -W: exit code 0
#   jupyter-book build -W --all: exit code 1
#   seen: 0, 0 with -W, 1 with -W --all

. "$(dirname "$0")/_venv.sh"
venv jupyter-book==1.0.4.post1 sphinx==7.4.7 ipykernel==7.4.0
mkdir book
cat > make.py <<'PY'
import nbformat
import nbformat.v4 as v4

cells = [v4.new_markdown_cell("# Title"), v4.new_code_cell("1 / 0"), v4.new_code_cell("print('after' + 'wards')")]
kernel = {"name": "python3", "display_name": "x", "language": "python"}
nbformat.write(v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), "book/page.ipynb")
PY
python make.py
printf 'title: x\nexecute:\n  execute_notebooks: force\n' >book/_config.yml
printf 'format: jb-book\nroot: page\n' >book/_toc.yml
for options in '' -W '-W --all'; do
    code=0
    jupyter-book build book $options >log 2>&1 || code=$?
    echo "jupyter-book build $options: exit code $code"
    codes="${codes:-}$code "
    [ -n "$options" ] || see "the page shows ZeroDivisionError" grep -q ZeroDivisionError book/_build/html/page.html
    [ -n "$options" ] || see "the cell after it was not run" sh -c '! grep -q afterwards book/_build/html/page.html'
done
see "0, 0 with -W, 1 with -W --all" test "$codes" = '0 0 1 '
