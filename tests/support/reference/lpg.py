"""Learned Policy Gradient's network and loss as explicit NumPy loops, from the definition."""

import numpy as np


def _sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def softmax(x):
    exponents = np.exp(x - x.max(-1, keepdims=True))
    return exponents / exponents.sum(-1, keepdims=True)


def targets(meta_params, logits, y, next_y, action, reward, terminated, truncated, *, gamma, lifetime_features=None):
    """pi_hat [T, B] and y_hat [T, B, m], one worker and one step at a time.

    `lifetime_features` is (n, N) or None.
    """
    gru, embedding = meta_params["gru"], meta_params["embedding"]
    width = gru["recurrent"].shape[0]
    num_steps, num_workers = reward.shape
    pi_hat = np.zeros((num_steps, num_workers))
    y_hat = np.zeros_like(y)

    def embed(prediction):
        hidden = np.maximum(prediction @ embedding["hidden"] + embedding["hidden_bias"], 0.0)
        return float((hidden @ embedding["out"] + embedding["out_bias"])[0])

    for b in range(num_workers):
        carry = np.zeros(width)
        for t in reversed(range(num_steps)):
            ended = terminated[t, b] or truncated[t, b]
            if ended:
                carry = np.zeros(width)
            probability = softmax(logits[t, b])[action[t, b]]
            after = 0.0 if terminated[t, b] else embed(softmax(next_y[t, b]))
            x = [reward[t, b], float(ended), gamma, probability, embed(softmax(y[t, b])), after]
            if lifetime_features is not None:
                n, lifetime = lifetime_features
                x += [n / lifetime, np.log(lifetime)]
            x = np.array(x)
            w, u = gru["input"], gru["recurrent"]
            bias = gru["input_bias"]
            r = _sigmoid(x @ w[:, :width] + bias[:width] + carry @ u[:, :width])
            z = _sigmoid(x @ w[:, width : 2 * width] + bias[width : 2 * width] + carry @ u[:, width : 2 * width])
            candidate = np.tanh(
                x @ w[:, 2 * width :] + bias[2 * width :] + r * (carry @ u[:, 2 * width :] + gru["recurrent_bias"])
            )
            carry = (1.0 - z) * candidate + z * carry
            out = np.maximum(carry, 0.0) @ meta_params["out"] + meta_params["out_bias"]
            pi_hat[t, b] = out[0]
            y_hat[t, b] = softmax(out[1:])
    return pi_hat, y_hat


def loss(logits, y, action, pi_hat, y_hat, *, prediction_weight):
    """The agent's loss, averaged over steps and workers."""
    total = 0.0
    num_steps, num_workers = action.shape
    for t in range(num_steps):
        for b in range(num_workers):
            log_prob = np.log(softmax(logits[t, b])[action[t, b]])
            p = softmax(y[t, b])
            total += -log_prob * pi_hat[t, b] + prediction_weight * np.sum(p * (np.log(p) - np.log(y_hat[t, b])))
    return total / (num_steps * num_workers)
