"""Statistics of scores over tasks and seeds, as recommended by arXiv:2108.13264.

The interquartile mean ignores the best and the worst quarter of all runs, so that neither a few lucky lives nor a few
impossible levels decide; a stratified bootstrap says how far it would move with other seeds.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Interval:
    """A statistic and its confidence interval."""

    point: float
    low: float
    high: float


def normalize(returns: np.ndarray, random_return: np.ndarray, optimal_return: np.ndarray) -> np.ndarray:
    """Score returns between a random policy and the optimum: (return - random) / (optimal - random).

    Args:
        returns: [..., num_tasks, num_seeds].
        random_return: [num_tasks], scores 0.
        optimal_return: [num_tasks], scores 1.

    Returns:
        [..., num_tasks, num_seeds]. Below 0 where an agent is worse than random.

    Raises:
        ValueError: where the optimum is not above random, so that there is no scale.
    """
    scale = optimal_return - random_return
    if not np.all(scale > 0.0):
        raise ValueError(f"scores need optimal > random on every task; tasks {np.flatnonzero(~(scale > 0.0))} have not")
    return (returns - random_return[:, None]) / scale[:, None]


def iqm(scores: np.ndarray, axis: int | None = None) -> np.ndarray:
    """Interquartile mean: the mean of what is left without the lowest and highest floor(n / 4) scores.

    Args:
        scores: any shape.
        axis: reduced axis; all of them by default.

    Returns:
        float64, without the reduced axes.
    """
    from scipy import stats

    return stats.trim_mean(scores, 0.25, axis=axis)


def iqm_interval(scores: np.ndarray, *, num_resamples: int = 2000, confidence: float = 0.95, seed: int = 0) -> Interval:
    """IQM over all tasks and seeds, with a percentile bootstrap interval.

    With several seeds the tasks are strata: seeds are resampled within each task, and the interval is about other seeds
    on these very tasks. With one seed the tasks are resampled, and it is about other tasks. A single score has nothing
    to resample: its interval is a point.

    Note:
        Resampling S seeds within a task underestimates the variance by (S - 1) / S, half of it where S = 2. So with
        strata both ends are moved away from the point by sqrt(S / (S - 1)).

    Args:
        scores: [num_tasks, num_seeds], finite.
        num_resamples: bootstrap samples.
        confidence: of the interval, in (0, 1).
        seed: of the resampling; the same scores give the same interval.

    Raises:
        ValueError: for another shape, no scores or scores that are not finite.
    """
    from scipy import stats

    scores = np.asarray(scores, np.float64)
    if scores.ndim != 2 or scores.size == 0:
        raise ValueError(f"scores must be [num_tasks, num_seeds] with at least one of each, got shape {scores.shape}")
    num_missing = np.sum(~np.isfinite(scores))
    if num_missing:
        raise ValueError(f"{num_missing} of {scores.size} scores are not finite: a mean of the others would mislead")
    point = float(iqm(scores))
    if scores.size == 1:
        return Interval(point, point, point)
    num_seeds = scores.shape[1]
    samples = tuple(scores) if num_seeds > 1 else (scores[:, 0],)
    stretch = np.sqrt(num_seeds / (num_seeds - 1)) if num_seeds > 1 else 1.0

    def statistic(*samples: np.ndarray, axis: int) -> np.ndarray:
        return iqm(np.concatenate(samples, axis=axis), axis=axis)

    result = stats.bootstrap(
        samples,
        statistic,
        n_resamples=num_resamples,
        # The largest intermediate array holds about four million scores.
        batch=max(1, 2**22 // scores.size),
        vectorized=True,
        paired=False,
        axis=-1,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    low, high = (point + stretch * (end - point) for end in result.confidence_interval)
    return Interval(point, float(low), float(high))


def mean_interval(values: np.ndarray, *, confidence: float = 0.95) -> Interval:
    """Mean of independent runs with Student's interval: for so few runs that resampling them says too little.

    Args:
        values: [n], one number for each run, such as the IQM of its agents; at least 2, or the interval is a point.
        confidence: of the interval, in (0, 1).
    """
    from scipy import stats

    values = np.asarray(values, np.float64)
    point = float(np.mean(values))
    if values.size < 2:
        return Interval(point, point, point)
    quantile = stats.t.ppf(0.5 + confidence / 2.0, values.size - 1)
    half = float(quantile * np.std(values, ddof=1) / np.sqrt(values.size))
    return Interval(point, point - half, point + half)


def ks_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Two-sample Kolmogorov-Smirnov distance: max_x |F_1(x) - F_2(x)|.

    Args:
        first: [n] numbers, which may be infinite but not NaN; n at least 1.
        second: [m], likewise.

    Returns:
        In [0, 1].
    """
    values = np.union1d(first, second)
    shares = (np.searchsorted(np.sort(each), values, side="right") / len(each) for each in (first, second))
    return float(np.max(np.abs(np.subtract(*shares))))


def ks_critical(num_first: int, num_second: int, *, level: float = 0.05) -> float:
    """The distance that two samples of one continuous distribution exceed with probability `level`.

    sqrt(-ln(level / 2) / 2) sqrt((n + m) / (n m)), for large samples. Discrete numbers exceed it less often.

    Args:
        num_first: n.
        num_second: m.
        level: in (0, 1).
    """
    scale = np.sqrt((num_first + num_second) / (num_first * num_second))
    return float(np.sqrt(-np.log(level / 2.0) / 2.0) * scale)
