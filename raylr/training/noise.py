"""The gradient noise scale: how far the gradients of micro-batches scatter around that of the whole update.

Of M micro-batches of Bs examples each, with gradients g_i and their mean g (McCandlish et al. 2018, arXiv 1812.06162, appendix
A), and Bb = M Bs: the square of the true gradient is about (Bb |g|^2 - Bs mean |g_i|^2) / (Bb - Bs), and the variance of one
example's gradient, the trace of its covariance, (mean |g_i|^2 - |g|^2) / (1 / Bs - 1 / Bb). Both estimates are unbiased and
noisy, and the first may be below 0: each is averaged over updates, and the noise scale is the ratio of the averages. The
squares are summed over micro-batches in the fixed tree, beside the gradients, so they are equal at every world size.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Noise:
    """What one update says: estimates of the squared norm of the true gradient, and of the variance of one example's."""

    square: float
    variance: float


def noise_of(mean_square: float, norm: float, micro: int, batch: int) -> Noise:
    """The estimates from the mean |g_i|^2 over micro-batches of `micro` examples, and |g| of the `batch`, larger than `micro`.

    >>> noise_of(mean_square=3.0, norm=1.0, micro=1, batch=4)
    Noise(square=0.3333333333333333, variance=2.6666666666666665)
    """
    square = norm * norm
    return Noise(
        (batch * square - micro * mean_square) / (batch - micro), (mean_square - square) / (1 / micro - 1 / batch)
    )
