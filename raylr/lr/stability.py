"""How large an LR the start of a run bears: what the headrooms of its first updates say, and the bound of its sharpness."""

import math
from collections.abc import Sequence

LIMIT = 0.5  # headroom above which the LRs of benchmarks/headroom.py were too high, mostly
BEARABLE = 0.25  # up to here those of good runs were, in the first update
AVERAGED = 5  # readings, since one is noisy


def highest(headrooms: Sequence[float | None]) -> float:
    """The highest geometric mean of up to AVERAGED readings in a row, the first by itself; infinite where one is missing.

    >>> round(highest([0.1, 0.4, 0.2]), 3), highest([0.1, None])
    (0.2, inf)
    """
    known = [one for one in headrooms if one is not None]
    if not known or len(known) < len(headrooms):
        return math.inf
    logs = [math.log(one) for one in known]
    windows = [logs[max(0, end - AVERAGED) : end] for end in range(1, len(logs) + 1)]
    return math.exp(max(math.fsum(window) / len(window) for window in windows))


def edge(kind: str, eigenvalue: float, momentum: float, nesterov: bool, beta1: float) -> float | None:
    """The LR from which the optimizer is unstable on a quadratic of this largest eigenvalue: of the Hessian for SGD, else of
    the preconditioned one. None where no bound is known, or nothing curves upwards.

    GD: 2 / eigenvalue; heavy ball m: 2 (1 + m); Nesterov: 2 (1 + m) / (1 + 2 m); Adam: (2 + 2 beta1) / (1 - beta1), which is
    38 for 0.9 (Cohen et al. 2021, 2022, arXiv 2103.00065 and 2207.14484).

    >>> edge("sgd", 2.0, 0.0, False, 0.9), edge("sgd", 2.0, 0.9, False, 0.9), round(edge("adamw", 1.0, 0.9, True, 0.9), 6)
    (1.0, 1.9, 38.0)
    """
    if eigenvalue <= 0:
        return None
    if kind in ("sgd", "rmsprop"):
        ahead = 2 * momentum if kind == "sgd" and nesterov else 0.0
        return 2 * (1 + momentum) / ((1 + ahead) * eigenvalue)
    if kind in ("adam", "adamw"):
        return (2 + 2 * beta1) / ((1 - beta1) * eigenvalue)
    return None
