#!/bin/sh
# papermill 2.7.0: what becomes of a parameter. A tuple arrives as the text of a tuple. On the command line, -p takes
# any text for a number that Python would: an identifier "007" becomes 7, "1_000" becomes 1000, "nan" a float, and the
# commit "12e4567" becomes infinity. A name that no cell has is a warning on the log and exit code 0: the notebook runs
# with its default.
#
# Seen in November 2026, Python 3.11, x86-64 Linux:
#   seen: the tuple (1, 2) arrives as the text '(1, 2)'
#   seen: -p x 007 arrives as the number 7
#   seen: -p x 1_000 arrives as the number 1000
#   seen: -p x nan arrives as the number nan
#   seen: -p x 12e4567 arrives as the number inf
#   seen: -p X 2 (no such name): exit code 0
#   seen: the notebook ran with its default
#   Passed unknown parameter: X

. "$(dirname "$0")/_venv.sh"
venv papermill==2.7.0 ipykernel==7.4.0
cat > make.py <<'PY'
import nbformat
import nbformat.v4 as v4

cells = [v4.new_code_cell("x = 'default'", metadata={"tags": ["parameters"]}), v4.new_code_cell("print(repr(x))")]
kernel = {"name": "python3", "display_name": "x", "language": "python"}
nbformat.write(v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), "in.ipynb")
PY
python make.py
cat > got.py <<'PY'
import json
import sys

last = json.load(open("out.ipynb"))["cells"][-1]["outputs"][0]["text"]
sys.exit("".join(last).strip() != sys.argv[1])
PY
pass="papermill.execute_notebook('in.ipynb', 'out.ipynb', {'x': (1, 2)}, progress_bar=False)"
python -c "import papermill; $pass" 2>log
see "the tuple (1, 2) arrives as the text '(1, 2)'" python got.py "'(1, 2)'"
for pair in 007=7 1_000=1000 nan=nan 12e4567=inf; do
    papermill --no-progress-bar in.ipynb out.ipynb -p x "${pair%=*}" >log 2>&1
    see "-p x ${pair%=*} arrives as the number ${pair#*=}" python got.py "${pair#*=}"
done
see "-p X 2 (no such name): exit code 0" sh -c 'papermill --no-progress-bar in.ipynb out.ipynb -p X 2 >log 2>&1'
see "the notebook ran with its default" python got.py "'default'"
grep 'unknown parameter' log
