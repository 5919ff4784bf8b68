"""Drifts: penalties of mirror learning on the distance from the policy that acted (arXiv:2210.05639).

An agent ascends mean[r A - D(r, A)], r = pi / pi_old. Whatever D is, learning has the guarantees of mirror learning as
long as D >= 0, D(1, A) = 0 and dD/dr(1, A) = 0: `violations` tests a drift for them. LPO learns D within these
conditions.

Equations are functions of l = log r: from it, r - 1 is exact also near r = 1, and it is finite also where r underflows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from metadisco.core.config import check_positive
from metadisco.core.devices import QUICK_COMPILATION
from metadisco.core.jax_defaults import own_defaults
from metadisco.core.lowrank import project
from metadisco.core.types import Key, MetaParams

LPO_FEATURES = ("l", "l^2", "e", "e^2", "A l", "A l^2", "A e", "A e^2")  # l = log r, e = 1 - r
LARGEST_LOG_RATIO = 20.0  # beyond, a sample has no gradient until the next rollout: r would overflow
_SMALLEST_RATIO, _LARGEST = 1e-30, float(jnp.finfo(jnp.float32).max)  # smaller ones would have no finite 1 / r
_STEP = 1e-7  # away from r = 1, where slopes are measured: less than the threshold of LPO can hide
_ROUNDING = 1e-5  # of what `violations` measures


class Drift(Protocol):
    """A penalty on the ratio of probabilities, pointwise."""

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the inputs of a learned drift, in order; () for one that is not learned."""

    def init(self, key: Key) -> MetaParams:
        """Random meta-parameters; () where nothing is learned."""

    def penalty(
        self, meta_params: MetaParams, log_ratio: jax.Array, advantage: jax.Array, fraction: jax.Array | float
    ) -> jax.Array:
        """D(r, A).

        Args:
            meta_params: of the drift.
            log_ratio: [...] float32, log r.
            advantage: [...] float32, A, of about unit scale.
            fraction: n/N of the agent's life, broadcast against the others.

        Returns:
            [...] float32, >= 0.
        """


@own_defaults
def drift(
    rule: Drift,
    meta_params: MetaParams,
    ratio: jax.Array | float,
    advantage: jax.Array | float,
    fraction: jax.Array | float = 0.0,
) -> jax.Array:
    """D(r, A) from the ratio itself, for plots or other training loops. [...] float32.

    It is finite with finite derivatives for every ratio from 0 to infinity and every finite advantage. Beyond
    r = e^20 it grows by A where A > 0: so r A - D stays what it is there, as in `MirrorLearning`.

    Example:
        >>> import jax.numpy as jnp
        >>> float(drift(PPODrift(clip=0.25), (), jnp.float32(1.5), jnp.float32(2.0)))
        0.5
    """
    ratio, advantage, fraction = jnp.broadcast_arrays(
        *(jnp.asarray(each, jnp.float32) for each in (ratio, advantage, fraction))
    )
    ratio = jnp.clip(ratio, _SMALLEST_RATIO, _LARGEST)
    near = rule.penalty(meta_params, jnp.minimum(jnp.log(ratio), LARGEST_LOG_RATIO), advantage, fraction)
    beyond = jax.nn.relu(ratio - jnp.exp(LARGEST_LOG_RATIO)) * jax.nn.relu(advantage)
    return jnp.minimum(near + beyond, _LARGEST)


def ppo_drift(log_ratio: jax.Array, advantage: jax.Array, clip: float) -> jax.Array:
    """D = relu((r - clip(r, 1 - eps, 1 + eps)) A). [...] float32."""
    ratio = jnp.exp(log_ratio)
    return jax.nn.relu((ratio - jnp.clip(ratio, 1.0 - clip, 1.0 + clip)) * advantage)


def dpo_drift(log_ratio: jax.Array, advantage: jax.Array, alpha: float, beta: float) -> jax.Array:
    """D = relu(x - c tanh(x / c)), where x, c = (r - 1) A, alpha if A >= 0, and l A, beta if A < 0. [...] float32."""
    is_good = advantage >= 0.0
    x = advantage * jnp.where(is_good, jnp.expm1(log_ratio), log_ratio)
    scale = jnp.where(is_good, alpha, beta)
    return jax.nn.relu(x - scale * jnp.tanh(x / scale))


def lpo_features(log_ratio: jax.Array, advantage: jax.Array) -> jax.Array:
    """x of LPO, in the order of `LPO_FEATURES`; all are 0 at r = 1. [...] to [..., 8]."""
    log_ratio, advantage = jnp.broadcast_arrays(log_ratio, advantage)
    away = -jnp.expm1(log_ratio)
    x = jnp.stack([log_ratio, jnp.square(log_ratio), away, jnp.square(away)], axis=-1)
    return jnp.concatenate([x, advantage[..., None] * x], axis=-1)


@own_defaults
@dataclass(frozen=True)
class PPODrift:
    """Proximal policy optimization (arXiv:1707.06347) as a drift: r A - D is its clipped objective.

    Attributes:
        clip: eps; the ratio is clipped to [1 - eps, 1 + eps].

    Example:
        >>> PPODrift(clip=0.1).init(None)
        ()
    """

    clip: float = 0.2

    def __post_init__(self) -> None:
        check_positive(self, "clip")

    @property
    def features(self) -> tuple[()]:
        """None."""
        return ()

    def init(self, key: Key) -> tuple[()]:
        """Nothing is learned."""
        del key
        return ()

    def penalty(
        self, meta_params: tuple[()], log_ratio: jax.Array, advantage: jax.Array, fraction: jax.Array | float
    ) -> jax.Array:
        """See `ppo_drift`."""
        del meta_params, fraction
        return ppo_drift(log_ratio, advantage, self.clip)


@own_defaults
@dataclass(frozen=True)
class DPODrift:
    """Discovered policy optimization (arXiv:2210.05639): a formula for what LPO learned.

    Attributes:
        alpha: c for A >= 0, see `dpo_drift`.
        beta: c for A < 0.

    Example:
        >>> DPODrift().alpha
        2.0
    """

    alpha: float = 2.0
    beta: float = 0.6

    def __post_init__(self) -> None:
        check_positive(self, "alpha", "beta")

    @property
    def features(self) -> tuple[()]:
        """None."""
        return ()

    def init(self, key: Key) -> tuple[()]:
        """Nothing is learned."""
        del key
        return ()

    def penalty(
        self, meta_params: tuple[()], log_ratio: jax.Array, advantage: jax.Array, fraction: jax.Array | float
    ) -> jax.Array:
        """See `dpo_drift`."""
        del meta_params, fraction
        return dpo_drift(log_ratio, advantage, self.alpha, self.beta)


@own_defaults
@dataclass(frozen=True)
class LPODrift:
    """Learned policy optimization (arXiv:2210.05639), and its temporally-aware form (arXiv:2402.05828).

    D = relu(f(x) - xi), or relu(relu((r - clip r) A) + f(x) - xi) on top of PPO; f = dense, tanh, dense, both without
    biases, x = [l, l^2, e, e^2, A l, A l^2, A e, A e^2], l = log r, e = 1 - r. Every input is 0 at r = 1, and so is f;
    xi keeps D at 0 around it. Temporally aware: inputs [x, (n/N) x], for which the same holds.

    Attributes:
        width: hidden units of f.
        clip: eps of the PPO drift below f; None for no drift below.
        temporal: TA-LPO.
        threshold: xi.

    Example:
        >>> import jax
        >>> LPODrift(temporal=True).init(jax.random.key(0))["hidden"].shape
        (16, 128)
    """

    width: int = 128
    clip: float | None = 0.2
    temporal: bool = False
    threshold: float = 1e-4

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"LPODrift.width must be at least 1, got {self.width}")
        check_positive(self, "threshold", *(() if self.clip is None else ("clip",)))

    @property
    def features(self) -> tuple[str, ...]:
        """Inputs of f, in order; the order is part of a checkpoint."""
        late = tuple(f"n/N {name}" for name in LPO_FEATURES) if self.temporal else ()
        return LPO_FEATURES + late

    def init(self, key: Key) -> MetaParams:
        """LeCun-normal weights, the last ones a hundredth of that: learning begins near PPO, or near no drift."""
        hidden_key, out_key = jax.random.split(key)
        normal = jax.nn.initializers.lecun_normal()
        return {
            "hidden": normal(hidden_key, (len(self.features), self.width), jnp.float32),
            "out": 0.01 * normal(out_key, (self.width, 1), jnp.float32),
        }

    def penalty(
        self, meta_params: MetaParams, log_ratio: jax.Array, advantage: jax.Array, fraction: jax.Array | float
    ) -> jax.Array:
        """The equation of the class."""
        x = lpo_features(log_ratio, advantage)
        if self.temporal:
            late = jnp.asarray(fraction, jnp.float32)[..., None]
            x = jnp.concatenate([x, jnp.broadcast_to(late, x.shape) * x], axis=-1)
        learned = project(meta_params["out"], jnp.tanh(project(meta_params["hidden"], x)))[..., 0]
        if self.clip is not None:
            learned = ppo_drift(log_ratio, advantage, self.clip) + learned
        return jax.nn.relu(learned - self.threshold)


@own_defaults
def violations(
    rule: Drift, meta_params: MetaParams, *, largest_log_ratio: float = 3.0, largest_advantage: float = 3.0
) -> dict[str, float]:
    """Violations of the conditions of mirror learning by a drift, on a grid of (r, A) at n/N = 0, 1/2 and 1.

    Args:
        rule: the drift.
        meta_params: of it.
        largest_log_ratio: the grid's log r is in [-, +] this.
        largest_advantage: the grid's A is in [-, +] this.

    Returns:
        The largest -D (`negative`), |D(1, A)| (`at_one`), and |dD/dr(1, A)| from either side (`slope_at_one`), each 0
        where the condition holds, up to rounding.

    Note:
        Slopes are differences over 1e-7 in log r, since automatic derivatives at a kink are a convention.

    Example:
        >>> violations(PPODrift(), ())
        {'negative': 0.0, 'at_one': 0.0, 'slope_at_one': 0.0}
    """
    log_ratios = np.append(np.linspace(-largest_log_ratio, largest_log_ratio, 121), [0.0, _STEP, -_STEP])
    advantages = np.linspace(-largest_advantage, largest_advantage, 61)
    penalties = np.asarray(_penalties(rule, meta_params, log_ratios.astype(np.float32), advantages.astype(np.float32)))
    grid, (at_one, above, below) = penalties[:-3], penalties[-3:]
    slopes = np.stack([above - at_one, below - at_one]) / _STEP
    return {
        "negative": float(np.max(np.maximum(-grid, 0.0))),
        "at_one": float(np.max(np.abs(at_one))),
        "slope_at_one": float(np.max(np.abs(slopes))),
    }


@partial(jax.jit, static_argnums=0, compiler_options=QUICK_COMPILATION)
def _penalties(rule: Drift, meta_params: MetaParams, log_ratios: jax.Array, advantages: jax.Array) -> jax.Array:
    """D at every log r [R] and A [A], at n/N = 0, 1/2 and 1. [R, 3, A] float32."""
    fraction = jnp.array([0.0, 0.5, 1.0])[:, None]

    def at(log_ratio: jax.Array) -> jax.Array:
        log_ratio = jnp.broadcast_to(log_ratio, (3, advantages.size))
        return rule.penalty(meta_params, log_ratio, jnp.broadcast_to(advantages, log_ratio.shape), fraction)

    return jax.vmap(at)(log_ratios)


def verdicts(found: Mapping[str, float]) -> dict[str, str]:
    """What `violations` found, in words: condition -> `holds`, or by how much it is broken.

    Example:
        >>> verdicts({"negative": 0.5, "at_one": 0.0, "slope_at_one": 0.0})["D(r, A) >= 0"]
        'broken by up to 0.5'
    """
    conditions = {"negative": "D(r, A) >= 0", "at_one": "D(1, A) = 0", "slope_at_one": "dD/dr (1, A) = 0"}
    return {
        words: "holds" if found[name] <= _ROUNDING else f"broken by up to {found[name]:.3g}"
        for name, words in conditions.items()
    }
