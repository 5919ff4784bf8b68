"""Inputs of the golden values of Disco103, made by a formula, so that both sides have the same numbers from nothing.

A rollout of T steps by B workers observes T + 1 times, each time something new: observation number t B + b. An agent is
a table of outputs, one row for each observation, so its outputs are its parameters.
"""

import zlib

import numpy as np

T, B, A, M, BINS = 6, 3, 3, 600, 601
CALLS = 3
KEPT = (0, 2)  # calls of which results are kept
STRIDE = 12  # of the bins that are kept


def uniform(name, shape, scale=1.0):
    """Numbers in [-scale, scale) by SplitMix64 of their place and of the CRC-32 of a name. float32."""
    place = np.arange(np.prod(shape, dtype=np.int64), dtype=np.uint64) + np.uint64(zlib.crc32(name.encode()) << 24)
    with np.errstate(over="ignore"):
        x = place * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    unit = ((x ^ (x >> np.uint64(31))) >> np.uint64(40)).astype(np.float64) / 2.0**24
    return (scale * (2.0 * unit - 1.0)).astype(np.float32).reshape(shape)


def weights(shapes):
    """Arrays of the meta-network by the names of the published file: those of {name: shape}."""
    found = {}
    for name, shape in shapes.items():
        inputs = np.prod(shape[:-1]) if name.endswith("/w") else 16.0
        found[name] = uniform(name, shape, float(np.sqrt(3.0 / inputs)))
    return found


def outputs(name):
    """Outputs of an agent by head: [T + 1, B, ...]."""
    q = 2.0 * uniform(f"{name}/q", (T + 1, B, A, BINS))
    center = 12.0 * uniform(f"{name}/center", (T + 1, B, A, 1))
    return {
        "logits": uniform(f"{name}/logits", (T + 1, B, A), 1.5),
        "y": uniform(f"{name}/y", (T + 1, B, M), 3.0),
        "z": uniform(f"{name}/z", (T + 1, B, A, M), 3.0),
        "q": (q - 0.3 * np.abs(np.linspace(-300.0, 300.0, BINS) - center)).astype(np.float32),
        "aux_logits": uniform(f"{name}/aux", (T + 1, B, A, A), 1.5),
    }


def rollout(call):
    """Actions [T + 1, B], rewards [T, B] and terminations [T, B] of a call, and what the agent and its past say."""
    return {
        "action": (uniform(f"{call}/action", (T + 1, B)) * 0.5 * A + 0.5 * A).astype(np.int32),
        "reward": uniform(f"{call}/reward", (T, B), 2.0),
        "terminated": uniform(f"{call}/terminated", (T, B)) > 0.6,
        "outputs": outputs(f"{call}/now"),
        "behavior": outputs(f"{call}/behavior"),
    }
