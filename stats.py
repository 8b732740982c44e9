"""
How sure a figure is: intervals and tests over documents, for what is a sum divided by a sum.

    interval(bits, size)        # 95 % interval of bits.sum() / size.sum(): [low, high]
    paired(bits_a, bits_b, size)    # is b better than a on the same documents? difference, its interval, p
    wilson(71, 100)             # 95 % interval of a share: [0.615, 0.790]

Documents are what is drawn anew, not windows or tokens: the windows of a filing resemble each other. Of few documents a
plain bootstrap is too sure of itself (eight: 87 % of its 95 % intervals hold the truth), so its quantiles are moved
outward until their spread is the jackknife's standard error times Student's t instead of the normal law's 1.96. Then 93
to 96 % do, from five documents on, where documents differ as normal variables do; where they are skewed, fewer.
"""
import itertools
import math

import numpy as np

LEVEL = 1.959964  # the normal law's 97.5 % quantile
DRAWS = 2000
FLIPS = 10_000


def student(freedom):
    """The 97.5 % quantile of Student's t (Abramowitz and Stegun 26.7.5): 0.7 % off for 2 degrees of freedom."""
    z, n = LEVEL, freedom
    if n == 1:
        return 12.7062
    return (z + (z**3 + z) / (4 * n) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
            + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3)
            + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * n**4))


def interval(value, size=None, seed=0):
    """95 % interval [low, high] of sum(value) / sum(size) over N documents, or None of fewer than three."""
    value = np.asarray(value, np.float64)
    size = np.ones(len(value)) if size is None else np.asarray(size, np.float64)
    value, size = value[size > 0], size[size > 0]
    n = len(value)
    if n < 3:
        return None
    rng = np.random.default_rng(seed)
    rows = max(1, 1_000_000 // n)
    drawn = (rng.integers(n, size=(min(rows, DRAWS - i), n)) for i in range(0, DRAWS, rows))
    ratios = np.concatenate([value[i].sum(1) / size[i].sum(1) for i in drawn])
    without = (value.sum() - value) / (size.sum() - size)
    error = math.sqrt((n - 1) / n * np.square(without - without.mean()).sum())
    spread = ratios.std()
    wider = student(n - 1) / LEVEL * max(error / spread, math.sqrt(n / (n - 1))) if spread else 1.0
    middle = value.sum() / size.sum()
    return [float(middle + wider * (q - middle)) for q in np.quantile(ratios, [0.025, 0.975])]


def paired(a, b, size=None, seed=0):
    """
    What b costs more than a on the same N documents: {"difference", "interval_95", "p"}, sum(b - a) / sum(size) with
    its interval, and how often a sum at least as large comes about when each document's difference gets a random sign
    (all of them of up to 13 documents). Of fewer than six, which have too few signs to tell anything, p is that of
    Student's paired test, which trusts them to be normal; of fewer than two it is None.
    """
    difference = np.asarray(b, np.float64) - np.asarray(a, np.float64)
    size = np.ones(len(difference)) if size is None else np.asarray(size, np.float64)
    n, total = len(difference), abs(difference.sum())
    reach = total - 1e-9 * np.abs(difference).sum()
    if n < 2:
        p = None
    elif n < 6 and total and not difference.std():  # nothing to divide by: the signs' own
        p = 2.0 ** (1 - n)
    elif n < 6:
        angle = math.atan2(total, math.sqrt(n * (n - 1)) * difference.std(ddof=1)) if total else 0.0
        sine, cosine = math.sin(angle), math.cos(angle)  # Abramowitz and Stegun 26.7.3 and 4, for n - 1 = 1 to 4
        p = 1 - (2 * angle / math.pi, sine, 2 / math.pi * (angle + sine * cosine), sine * (1 + cosine**2 / 2))[n - 2]
    elif n <= 13:
        signs = np.array(list(itertools.product((1, -1), repeat=n)))
        p = (np.abs(signs @ difference) >= reach).mean()
    else:
        rng = np.random.default_rng(seed)
        signs = (rng.integers(2, size=n) * 2 - 1 for _ in range(FLIPS))
        p = (1 + sum(abs(s @ difference) >= reach for s in signs)) / (1 + FLIPS)
    return {"difference": float(difference.sum() / size.sum()) if n else None,
            "interval_95": interval(difference, size, seed), "p": None if p is None else float(p)}


def share(right, n, seed=0):
    """
    95 % interval of a share, sum(right) / sum(n) over documents; of two, and where none or all is right, there is too
    little to draw anew: Wilson's, each document counting as one.
    """
    right, n = np.asarray(right, np.float64), np.asarray(n, np.float64)
    middle = float(right.sum() / n.sum())
    ends = middle not in (0.0, 1.0) and interval(right, n, seed) or wilson(middle * len(n), len(n))
    return [max(0.0, ends[0]), min(1.0, ends[1])]


def wilson(right, n, z=LEVEL):
    """95 % interval of a share of n (Wilson 1927), which holds near 0 and 1, too."""
    p, middle = right / n, (right + z * z / 2) / (n + z * z)
    half = z * math.sqrt(p * (1 - p) * n + z * z / 4) / (n + z * z)
    return [max(0.0, min(p, middle - half)), min(1.0, max(p, middle + half))]
