#!/bin/sh
# snakemake 9.27.1: what `kill -9` of the main process leaves. The job that it had started runs on as an orphan. The
# next start stops at the lock; with `--quiet all` it does so without a word. Its advice, --unlock, doesn't look whether
# that job still runs, nor does the start after it: as long as the output isn't there yet, nothing counts as incomplete,
# so a second job writes the same file beside the first.
#
# Seen in November 2026, Python 3.11, x86-64 Linux:
#   seen: the main process was killed, its job (a shell) is still there
#   seen: started again with --quiet all: exit code 1, 0 bytes of output
#   seen: without it: LockException
#   seen: --unlock ends with 0 while the orphan runs
#   seen: the start after that starts a second writer of the same file
#   seen: the first is still at work

. "$(dirname "$0")/_venv.sh"
venv snakemake==9.27.1
cat > Snakefile <<'SMK'
rule work:
    output: "result"
    shell: "echo start $$ >> log; for i in $(seq 300); do [ -e go ] || sleep 0.2; done; echo end >> log; touch result"
SMK
await() { for _ in $(seq 300); do "$@" && return; sleep 0.2; done; return 1; }
logged() { [ "$(grep -c "$1" log 2>/dev/null)" = "$2" ]; }
snakemake --cores 1 >first 2>&1 &
main=$!
await logged start 1
kill -9 $main
wait $main || true
orphan=$(sed -n 's/start //p' log)
see "the main process was killed, its job (the shell $orphan) is still there" kill -0 "$orphan"
code=0
snakemake --cores 1 --quiet all >second 2>&1 || code=$?
see "started again with --quiet all: exit code $code, $(wc -c <second) bytes of output" test "$code" != 0 -a ! -s second
snakemake --cores 1 >second 2>&1 || true
see "without it: $(grep -o '^LockException' second || true)" grep -q LockException second
see "--unlock ends with 0 while the orphan runs" sh -c 'snakemake --unlock >unlock 2>&1'
snakemake --cores 1 >third 2>&1 &
third=$!
see "the start after that starts a second writer of the same file" await logged start 2
see "the first is still at work" kill -0 "$orphan"
touch go
wait $third
await logged end 2
