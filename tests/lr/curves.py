"""Plain second implementations of the shapes and small builders, shared by the tests of raylr.lr.

The formulas are written a second time, in floats and loops, from the definitions: no code of raylr is called by them.
"""

from math import cos, floor, log, pi, sqrt

from raylr.lr import Clock, Momentum, Policy, Schedule, Warmup, parse_shape
from raylr.lr.shapes import Shape

EPOCH, TOTAL, WARMUP = 100, 1000, 100
CLOCK = Clock(examples_per_epoch=EPOCH, total_examples=TOTAL, global_batch=10)


def shape(text: str) -> Shape:
    """Return a shape over ten epochs of 100 examples in updates of 10."""
    return parse_shape(text, CLOCK)


def policy(
    text: str = "linear",
    warmup: Warmup | int = WARMUP,
    base_lr: float = 1.0,
    reference_batch: int = 10,
    scaling: str = "none",
    momentum: Momentum | None = None,
) -> Policy:
    """Return a policy of one optimizer, `sgd`, over ten epochs of 100 examples."""
    rise = warmup if isinstance(warmup, Warmup) else Warmup(warmup)
    schedule = Schedule(base_lr, reference_batch, scaling, rise, shape(text), momentum)  # type: ignore[arg-type]
    return Policy(EPOCH, TOTAL, (("sgd", schedule),))


def u(p: int) -> float:
    """The share of the way from the end of the warmup to the end of the run."""
    return max(0.0, min(1.0, (p - WARMUP) / (TOTAL - WARMUP)))


def saw(p: int, up: int, down: int) -> float:
    """The height of a triangle wave by walking through it."""
    while p >= up + down:
        p -= up + down
    return p / up if p < up else 1 - (p - up) / down


def restarted(p: int, period: int, factor: int) -> float:
    """The cosine with restarts by walking through its cycles; the end of the run belongs to the last cycle."""
    start = 0
    while p >= start + period and not (p >= TOTAL and start + period >= TOTAL):
        start, period = start + period, period * factor
    return (1 + cos(pi * (p - start) / period)) / 2


def one_cycle(p: int) -> float:
    """Torch's way of writing it: an annealing between two values on each leg."""
    first, top, last = 1 / 25, 1.0, 1 / 250000
    if p <= 300:
        return top + (first - top) / 2 * (1 + cos(pi * p / 300))
    return last + (top - last) / 2 * (1 + cos(pi * (p - 300) / 700))


PLAIN = {
    "constant": lambda p: 1.0,
    "step(every=2ep, gamma=0.5)": lambda p: 0.5 ** floor(p / 200),
    "multistep(at=[150ex, 5ep], gamma=0.1)": lambda p: 0.1 ** ((p >= 150) + (p >= 500)),
    "exponential(gamma=0.9, every=1ep)": lambda p: 0.9 ** (p / 100),
    "exponential(gamma=0.9, every=1ep, staircase=yes)": lambda p: 0.9 ** floor(p / 100),
    "inverse_time(rate=0.5, every=1ep)": lambda p: 1 / (1 + 0.5 * p / 100),
    "polynomial(power=2)": lambda p: (1 - u(p)) ** 2,
    "linear": lambda p: 1 - u(p),
    "cosine": lambda p: 0.5 * (1 + cos(pi * u(p))),
    "cosine(floor=0.01)": lambda p: 0.01 + 0.99 * 0.5 * (1 + cos(pi * u(p))),
    "cosine_restarts(period=2ep)": lambda p: restarted(p, 200, 1),
    "cosine_restarts(period=1ep, factor=2, floor=0.1)": lambda p: 0.1 + 0.9 * restarted(p, 100, 2),
    "cyclic(low=0.1, high=0.4, up=2ep)": lambda p: 0.25 + 0.75 * saw(p, 200, 200),
    "cyclic(low=0.1, high=0.4, up=1ep, down=3ep)": lambda p: 0.25 + 0.75 * saw(p, 100, 300),
    "cyclic(low=0.1, high=0.4, up=1ep, mode=triangular2)": lambda p: (
        0.25 + 0.75 * saw(p, 100, 100) / 2 ** floor(p / 200)
    ),
    "cyclic(low=0.1, high=0.4, up=1ep, mode=exp_range, gamma=0.9, every=1ep)": lambda p: (
        0.25 + 0.75 * saw(p, 100, 100) * 0.9 ** (p / 100)
    ),
    "cyclic(low=0.1, high=0.4, up=1ep, down=3ep, legs=cosine)": lambda p: (
        0.25 + 0.75 * (1 - cos(pi * saw(p, 100, 300))) / 2
    ),
    "one_cycle": one_cycle,
    "one_cycle(pct=0.5, div=10, final_div=10, legs=linear, length=400ex)": lambda p: (
        0.1 + 0.9 * p / 200 if p <= 200 else max(0.01, 0.01 + 0.99 * (400 - p) / 200)
    ),
    "inverse_sqrt": lambda p: sqrt(100 / max(p, 100)),
    "inverse_sqrt(timescale=2ep)": lambda p: sqrt(200 / max(p, 200)),
    "wsd": lambda p: 1 - sqrt(max(0, p - 800) / 200),
    "wsd(cooldown=0.1dur, form=linear)": lambda p: 1 - max(0, p - 900) / 100,
    "wsd(cooldown=0.1dur, form=cosine)": lambda p: 0.5 + 0.5 * cos(pi * max(0, p - 900) / 100),
    "wsd(cooldown=0.1dur, form=exponential)": lambda p: 2 * 0.5 ** (max(0, p - 900) / 100) - 1,
    "rex": lambda p: (1 - u(p)) / (1 - u(p) / 2),
    "knots(1ep:0.5, 3ep:1, 10ep:0)": lambda p: (
        0.5 if p < 100 else 0.5 + 0.5 * (p - 100) / 200 if p < 300 else (1000 - p) / 700
    ),
    "knots(0ep:0.5, 3ep:1, interpolation=step)": lambda p: 0.5 if p < 300 else 1.0,
    "knots(0ep:0.01, 10ep:1, interpolation=log)": lambda p: 10 ** (log(100, 10) * (p / 1000 - 1)),
    "sequence(constant for 5ep, cosine)": lambda p: 0.5 * (1 + cos(pi * max(0, p - 500) / 500)),
    "sequence(step(every=1ep, gamma=0.5) for 2ep, linear for 3ep, constant)": lambda p: (
        0.5 ** floor(p / 100) if p < 200 else 1 - (p - 200) / 300 if p < 500 else 1.0
    ),
    "product(step(every=5ep), linear, floor=0.5)": lambda p: 0.5 + 0.5 * 0.1 ** floor(p / 500) * (1 - u(p)),
    "with_leg(linear, knots(0ep:0, 5ep:1, 10ep:0))": lambda p: 1 - u(p),
    "seesaw(linear, doublings=2)": lambda p: 1.0 if u(p) < 0.5 else sqrt(0.5) if u(p) < 0.75 else 2 * (1 - u(p)),
    "seesaw(step(every=3ep, gamma=0.25))": lambda p: (
        2.0 ** -floor(p / 300) if p < 600 else 4**-3 * 2**1.5 if p >= 900 else 4**-2 * 2**1.5
    ),
    "paced(cosine, every=1ep)": lambda p: 0.5 * (1 + cos(pi * u(p // 100 * 100))),
    "paced(linear(floor=0.1), length=500ex)": lambda p: max(0.1, 1 - 0.9 * max(0, p - 100) / 400),
    "paced(polynomial(power=2), every=1ep, length=20ep, floor=0.5)": lambda p: (
        0.5 + 0.5 * (1 - max(0, p // 100 * 100 - 100) / 1900) ** 2
    ),
}
RISES_BY_ITSELF = ("cyclic", "one_cycle")


def warmup_of(text: str) -> int:
    """Return the warmup that the plain formulas of `text` are written for."""
    return 0 if text.startswith(RISES_BY_ITSELF) else WARMUP
