"""Targets of `ScheduledA2C` in plain NumPy, step by step."""

import numpy as np


def coefficients(net, inputs, objective):
    """Step sizes of policy and prediction, entropy weight, lambda, gamma, scale and offset."""
    hidden = np.tanh(np.array([inputs[name] for name in objective.inputs]) @ net["hidden"] + net["hidden_bias"])
    policy, prediction, entropy, lam, discount, scale, offset = hidden @ net["out"] + net["out_bias"]

    def moved(usual, by):
        odds = usual / (1 - usual) * np.exp(2 * by)
        return odds / (1 + odds)

    return (
        np.exp(np.clip(2 * policy, -5, 5)),
        np.exp(np.clip(2 * prediction, -5, 5)),
        objective.entropy_weight + entropy / 50,
        moved(objective.gae_lambda, lam),
        moved(objective.gamma, discount),
        objective.loss_scale * np.exp(np.clip(2 * scale, -5, 5)),
        offset,
    )


def inputs(history, rollout, n, lifetime, gamma):
    """What the net is told. `history` has the largest |reward|, two running means and the best, with this rollout, and
    of each worker whether an episode ended, step by step over the life, [steps of the life, B]."""
    unit = history["largest"] or 1.0
    probs = np.exp(rollout["logits"]) / np.exp(rollout["logits"]).sum(-1, keepdims=True)
    entropy = -(probs * np.log(probs)).sum(-1).mean() / np.log(probs.shape[-1])
    following = np.where(rollout["terminated"], 0.0, rollout["next_value"])
    error = rollout["reward"] / unit + gamma * following - rollout["value"]
    return {
        "fraction_of_lifetime": 2 * n / lifetime - 1,
        "log_lifetime": np.log(lifetime) - 3.7,
        "mean_reward": np.tanh(10 * history["fast"] / unit),
        "reward_trend": np.tanh(30 * (history["fast"] - history["slow"]) / unit),
        "best_mean_reward": np.tanh(10 * history["best"] / unit),
        "reward_density": np.tanh(10 * (rollout["reward"] != 0).mean()),
        "reward_seen": float(history["largest"] > 0),
        "entropy": 2 * entropy - 1,
        "value_error": np.log(1e-3 + np.sqrt((error**2).mean())) / 3 + 1,
        "episode_length": np.log(np.mean(lengths(history["finished"])) / 100) / 2,
        "longest_episode": np.log(max(lengths(history["finished"])) / 100) / 2,
    }


def lengths(finished):
    """Steps of every episode, those that go on included, which may have none yet."""
    found = []
    for worker in np.asarray(finished).T:
        length = 0
        for ended in worker:
            length += 1
            if ended:
                found.append(length)
                length = 0
        found.append(length)
    return found


def targets(net, history, rollout, n, lifetime, objective):
    """Advantages, value targets and coefficients."""
    said = coefficients(net, inputs(history, rollout, n, lifetime, objective.gamma), objective)
    lam, discount, offset = said[3], said[4], said[6]
    reward = rollout["reward"] / (history["largest"] or 1.0)
    num_steps, num_workers = reward.shape
    advantage = np.zeros_like(reward)
    for b in range(num_workers):
        running = 0.0
        for t in reversed(range(num_steps)):
            following = 0.0 if rollout["terminated"][t, b] else rollout["next_value"][t, b]
            delta = reward[t, b] + discount * following - rollout["value"][t, b]
            ended = rollout["terminated"][t, b] or rollout["truncated"][t, b]
            running = delta + (0.0 if ended else discount * lam * running)
            advantage[t, b] = running
    value = rollout["value"] + advantage
    return advantage - offset * advantage.mean(), value, said
