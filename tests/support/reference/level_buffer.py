"""Level buffers once more: slow, plain Python and NumPy, from the description of the rules and not from the package."""

import itertools
import math

import numpy as np


def rank_weights(score, is_filled, temperature):
    """(1 / rank)^(1 / temperature); equal scores share the weights of their ranks."""
    weights = np.zeros(len(score))
    filled = [i for i in range(len(score)) if is_filled[i]]
    for i in filled:
        better = sum(score[j] > score[i] for j in filled)
        equal = sum(score[j] == score[i] for j in filled)
        weights[i] = np.mean([(1 / rank) ** (1 / temperature) for rank in range(better + 1, better + equal + 1)])
    return weights / max(weights.sum(), 1e-300)


def proportional_weights(score, is_filled, temperature):
    """max(score, 0)^(1 / temperature); equal weights where there is nothing positive."""
    powers = np.array([max(float(s), 0.0) ** (1 / temperature) if f else 0.0 for s, f in zip(score, is_filled)])
    return uniform_if_zero(powers, is_filled)


def top_k_weights(score, is_filled, k):
    """The k best; of equal ones the first."""
    filled = [i for i in range(len(score)) if is_filled[i]]
    best = sorted(filled, key=lambda i: (-score[i], i))[:k]
    return uniform_if_zero(np.isin(np.arange(len(score)), best).astype(float), is_filled)


def uniform_if_zero(values, is_filled):
    if values.sum() == 0:
        values = np.asarray(is_filled, float)
    return values / max(values.sum(), 1e-300)


def mixed_weights(by_score, clock, last_seen, is_filled, staleness_weight):
    """(1 - c) w_score + c w_stale."""
    stale = np.array([float(clock - seen) if filled else 0.0 for seen, filled in zip(last_seen, is_filled)])
    return (1 - staleness_weight) * by_score + staleness_weight * uniform_if_zero(stale, is_filled)


def sequence_probabilities(weights, length):
    """Probability of every sequence of draws without replacement."""
    found = {}
    for sequence in itertools.permutations(range(len(weights)), length):
        left, probability = float(np.sum(weights)), 1.0
        for place in sequence:
            probability *= weights[place] / left if left > 0 else 0.0
            left -= weights[place]
        found[sequence] = probability
    return found


class Buffer:
    """Places as a list of dicts, or None where empty."""

    def __init__(self, capacity):
        self.places = [None] * capacity
        self.clock = 0
        self.num_nonfinite = 0

    def update(self, places, born, scores, is_due):
        finite = {}
        for place, entered, score, due in zip(places, born, scores, is_due):
            level = self.places[place] if place >= 0 else None
            if not due or level is None or level["born"] != entered:
                continue
            level["num_plays"] += 1
            level["last_seen"] = self.clock
            if math.isfinite(score):
                finite.setdefault(place, []).append(score)
            else:
                self.num_nonfinite += 1
        for place, values in finite.items():
            self.places[place]["score"] = np.mean(values)

    def insert(self, names, scores, is_candidate):
        """One after the other, the best first, each in the place of the lowest that it beats."""
        candidates = [(score, name) for name, score, candidate in zip(names, scores, is_candidate) if candidate]
        self.num_nonfinite += sum(not math.isfinite(score) for score, _ in candidates)
        finite = [pair for pair in candidates if math.isfinite(pair[0])]
        for score, name in sorted(finite, key=lambda pair: -pair[0]):
            values = [-math.inf if level is None else level["score"] for level in self.places]
            lowest = int(np.argmin(values))
            if score > values[lowest]:
                new = {"name": name, "score": score, "born": self.clock, "last_seen": self.clock, "num_plays": 1}
                self.places[lowest] = new
