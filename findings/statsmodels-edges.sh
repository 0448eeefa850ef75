#!/bin/sh
# statsmodels 0.15.0: the edges, where a comparison of classifiers often ends up. Wilson's interval of 0 of n doesn't
# start at exactly 0 for a fifth of all n up to 2000, that of n of n doesn't end at exactly 1 for a third.
# mcnemar(exact=False), for two classifiers that never differ, gives p = 0.0 (with its continuity correction, the
# default) or NaN (without): at the first look the strongest evidence possible for a difference. For one image each way
# p is 0.48, exactly it is 1.
#
# Seen in November 2026, Python 3.11, x86-64 Linux:
#   seen: Wilson: low isn't 0 for 21.5% of n, by up to 3e-17
#   seen: Wilson: high isn't 1 for 31.1% of n, by up to 2e-16
#   seen: never different: p = 0.0 with correction, nan without
#   seen: never different, exact: p = 1
#   seen: one image each way: p = 0.48, exact 1

. "$(dirname "$0")/_venv.sh"
venv statsmodels==0.15.0 'scipy==1.17.1'
python - <<'PY'
import math

from _toy import see
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

low = [float(proportion_confint(0, n, method="wilson")[0]) for n in range(1, 2001)]
high = [float(proportion_confint(n, n, method="wilson")[1]) for n in range(1, 2001)]
off = [share / 20 for share in (sum(value != 0 for value in low), sum(value != 1 for value in high))]
see(f"Wilson: low isn't 0 for {off[0]:.1f}% of n, by up to {max(low):.0e}", off[0] > 10 and max(low) < 1e-15)
see(f"Wilson: high isn't 1 for {off[1]:.1f}% of n, by up to {1 - min(high):.0e}", off[1] > 10 and 1 - min(high) < 1e-15)
same, even = [[50, 0], [0, 50]], [[50, 1], [1, 50]]
p = [float(mcnemar(same, exact=False, correction=correction).pvalue) for correction in (True, False)]
see(f"never different: p = {p[0]} with correction, {p[1]} without", p[0] == 0 and math.isnan(p[1]))
see("never different, exact: p = 1", mcnemar(same, exact=True).pvalue == 1)
p = [float(mcnemar(even, exact=exact).pvalue) for exact in (False, True)]
see(f"one image each way: p = {p[0]:.2f}, exact {p[1]:.0f}", p[0] < 0.5 and p[1] == 1)
PY
