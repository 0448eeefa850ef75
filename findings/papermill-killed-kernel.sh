#!/bin/sh
# papermill 2.7.0: what a killed kernel leaves. If the system ends a notebook's kernel (for lack of memory, say),
# papermill itself exits with an error, but the notebook that it saves calls every cell "completed", also the one that
# was killed and those that never ran, and names no exception: whoever reads the saved notebook alone takes it for a
# good run. The only trace is that the cells after it have no execution count. (A cell that raises is marked "failed",
# the later ones "pending".)
#
# Seen in November 2026, Python 3.11, x86-64 Linux:
#   seen: killed: papermill exits with 138
#   completed completed completed | exception None | execution counts [1, None, None]
#   seen: raised: papermill exits with 1
#   completed failed pending | exception True | execution counts [1, 2, None]
#   seen: a killed kernel: every cell completed, no exception
#   seen: an exception: the cell failed, the last one is pending

. "$(dirname "$0")/_venv.sh"
venv papermill==2.7.0 ipykernel==7.4.0
cat > make.py <<'PY'
import nbformat
import nbformat.v4 as v4

kernel = {"name": "python3", "display_name": "x", "language": "python"}
for name, code in (("killed", "import os; os.kill(os.getpid(), 9)  # as the system does"), ("raised", "1 / 0")):
    cells = [v4.new_code_cell(source) for source in ("print('first')", code, "print('last')")]
    nbformat.write(v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), f"{name}.ipynb")
PY
cat > status.py <<'PY'
import json
import sys

notebook = json.load(open(sys.argv[1]))
ran = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
status = " ".join(cell["metadata"]["papermill"]["status"] for cell in ran)
counts = [cell["execution_count"] for cell in ran]
print(status, "| exception", notebook["metadata"]["papermill"]["exception"], "| execution counts", counts)
PY
python make.py
for name in killed raised; do
    code=0
    papermill --no-progress-bar "$name.ipynb" "$name-out.ipynb" >log 2>&1 || code=$?
    see "$name: papermill exits with $code" test "$code" != 0
    python status.py "$name-out.ipynb" | tee "$name.txt"
done
see "a killed kernel: every cell completed, no exception" \
    grep -q '^completed completed completed | exception None | execution counts \[1, .*None\]' killed.txt
see "an exception: the cell failed, the last one is pending" grep -q 'failed pending | exception True' raised.txt
