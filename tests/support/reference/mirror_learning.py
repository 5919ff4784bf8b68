"""PPO's loss as explicit NumPy loops, from its paper: with the clipped objective, not with a drift."""

import math

import numpy as np

from tests.support.reference.lpg import softmax


def ppo_loss(logits, value, action, old_log_prob, advantage, returns, *, clip, value_weight, entropy_weight):
    """Logits [T, B, A], all others [T, B]."""
    num_steps, num_workers = advantage.shape
    normal = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    total = 0.0
    for t in range(num_steps):
        for b in range(num_workers):
            probs = softmax(logits[t, b].astype(np.float64))
            ratio = probs[action[t, b]] / math.exp(old_log_prob[t, b])
            clipped = min(max(ratio, 1.0 - clip), 1.0 + clip)
            total -= min(ratio * normal[t, b], clipped * normal[t, b])
            total += value_weight * 0.5 * (value[t, b] - returns[t, b]) ** 2
            total += entropy_weight * sum(p * math.log(p) for p in probs)
    return total / (num_steps * num_workers)
