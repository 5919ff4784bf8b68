"""Mixtures of Gaussians with full covariances, fitted by expectation maximization with a fixed number of iterations.

Everything has fixed shapes, so that a fit can be part of a compiled meta-step: a point may be left out, and a mixture
has K components of which some may be empty. How many are worth having is chosen by Akaike's criterion.
"""

from dataclasses import replace

import chex
import jax
import jax.numpy as jnp
from flax import struct

from metadisco.core import trees
from metadisco.core.types import Key


@struct.dataclass
class GaussianMixture:
    """K components in D dimensions; one of weight 0 is empty, and its other numbers mean nothing."""

    weight: jax.Array  # [K] float32, summing to 1
    mean: jax.Array  # [K, D] float32
    covariance: jax.Array  # [K, D, D] float32

    @property
    def is_active(self) -> jax.Array:
        """Which components are not empty. [K] bool."""
        return self.weight > 0.0


def empty(num_components: int, num_dimensions: int) -> GaussianMixture:
    """A mixture before any fit: its first component is a standard normal distribution, the others are empty."""
    return GaussianMixture(
        weight=jnp.zeros(num_components, jnp.float32).at[0].set(1.0),
        mean=jnp.zeros((num_components, num_dimensions), jnp.float32),
        covariance=jnp.broadcast_to(
            jnp.eye(num_dimensions, dtype=jnp.float32), (num_components, num_dimensions, num_dimensions)
        ),
    )


def log_joint(mixture: GaussianMixture, points: jax.Array) -> jax.Array:
    """log (w_k N(x; mean_k, covariance_k)) of points [W, D]; -inf for empty components. [W, K] float32."""
    chex.assert_rank(points, 2)

    def log_density(mean: jax.Array, covariance: jax.Array) -> jax.Array:
        factor = jnp.linalg.cholesky(covariance)
        whitened = jax.scipy.linalg.solve_triangular(factor, (points - mean).T, lower=True)  # [D, W]
        log_scale = jnp.sum(jnp.log(jnp.diagonal(factor))) + 0.5 * mean.size * jnp.log(2.0 * jnp.pi)
        return -0.5 * jnp.sum(whitened**2, axis=0) - log_scale

    log_densities = jax.vmap(log_density, out_axes=1)(mixture.mean, mixture.covariance)
    return jnp.where(mixture.is_active, jnp.log(mixture.weight) + log_densities, -jnp.inf)


def log_likelihood(mixture: GaussianMixture, points: jax.Array, counts: jax.Array) -> jax.Array:
    """Sum over the points [W, D] that count [W] of the logarithm of their density. [] float32."""
    return jnp.sum(jnp.where(counts, jax.nn.logsumexp(log_joint(mixture, points), axis=1), 0.0))


def maximize(
    mixture: GaussianMixture, points: jax.Array, responsibility: jax.Array, *, regularization: float
) -> GaussianMixture:
    """M step: weights, means and covariances under responsibilities [W, K], which are 0 for points that do not count.

    The covariances get `regularization` on their diagonals. A component that is responsible for nothing becomes empty.
    """
    num = jnp.sum(responsibility, axis=0)  # [K]
    share = responsibility / jnp.maximum(num, 1e-12)
    mean = jnp.einsum("wk,wd->kd", share, points)
    deviation = points[:, None] - mean  # [W, K, D]
    covariance = jnp.einsum("wk,wkd,wke->kde", share, deviation, deviation)
    covariance += regularization * jnp.eye(points.shape[1], dtype=jnp.float32)
    is_active = num > 1e-6
    weight = jnp.where(is_active, num, 0.0)
    fitted = GaussianMixture(weight / jnp.maximum(jnp.sum(weight), 1e-12), mean, covariance)
    return trees.where(is_active, fitted, replace(mixture, weight=jnp.zeros_like(weight)))


def expectation_maximization(
    key: Key,
    points: jax.Array,
    counts: jax.Array,
    num_components: jax.Array | int,
    *,
    max_components: int,
    num_iterations: int,
    regularization: float,
) -> GaussianMixture:
    """Fit a mixture.

    It begins at points drawn without replacement, each with the points that are nearest to it. Of fewer points than
    components the rest stay empty.

    Args:
        key: for the first means; a fit of more components begins with the same ones.
        points: [W, D] float32, finite.
        counts: [W] bool, which of them count.
        num_components: [] int32, at most K.
        max_components: K.
        num_iterations: of an E step and an M step.
        regularization: added to the diagonals of the covariances, which keeps them from collapsing.

    Returns:
        K components; without a point that counts all of them are empty.
    """
    chex.assert_equal_shape_prefix([points, counts], 1)
    num_first = min(max_components, counts.size)
    disturbed = jnp.where(counts, jax.random.gumbel(key, counts.shape), -jnp.inf)
    value, places = jax.lax.top_k(disturbed, num_first)
    is_used = (value > -jnp.inf) & (jnp.arange(num_first) < num_components)
    is_used = jnp.pad(is_used, (0, max_components - num_first))
    first = jnp.pad(points[places], ((0, max_components - num_first), (0, 0)))
    distance = jnp.sum((points[:, None] - first) ** 2, axis=-1)
    nearest = jnp.argmin(jnp.where(is_used, distance, jnp.inf), axis=1)
    responsibility = (nearest[:, None] == jnp.arange(max_components)) & is_used & counts[:, None]
    begun = replace(empty(max_components, points.shape[1]), mean=first)
    mixture = maximize(begun, points, responsibility.astype(jnp.float32), regularization=regularization)

    def iterate(_: int, mixture: GaussianMixture) -> GaussianMixture:
        # Where all components are empty a softmax would be NaN, and it would stay.
        joint = jnp.where(mixture.is_active, log_joint(mixture, points), -1e30)
        expected = jnp.where(counts[:, None] & mixture.is_active, jax.nn.softmax(joint, axis=1), 0.0)
        return maximize(mixture, points, expected, regularization=regularization)

    return jax.lax.fori_loop(0, num_iterations, iterate, mixture)


def fit(
    key: Key,
    points: jax.Array,
    counts: jax.Array,
    *,
    min_components: int,
    max_components: int,
    num_iterations: int,
    regularization: float,
) -> GaussianMixture:
    """Fit mixtures of several numbers of components and take the one of the least AIC = 2 p - 2 log L.

    p is the number of free parameters, k (1 + D + D (D + 1) / 2) - 1 of k components that are not empty. For the other
    arguments see `expectation_maximization`.
    """
    num_dimensions = points.shape[1]
    of_one = 1 + num_dimensions + num_dimensions * (num_dimensions + 1) // 2

    def one(num_components: jax.Array) -> tuple[GaussianMixture, jax.Array]:
        mixture = expectation_maximization(
            key,
            points,
            counts,
            num_components,
            max_components=max_components,
            num_iterations=num_iterations,
            regularization=regularization,
        )
        num_parameters = of_one * jnp.sum(mixture.is_active) - 1
        return mixture, 2.0 * num_parameters - 2.0 * log_likelihood(mixture, points, counts)

    mixtures, criteria = jax.vmap(one)(jnp.arange(min_components, max_components + 1))
    return trees.index(mixtures, jnp.argmin(criteria))


def sample(key: Key, mixture: GaussianMixture, weight: jax.Array) -> jax.Array:
    """Draw a point from a component that is drawn in proportion to `weight` [K], not negative. [D] float32.

    Components that are empty are never drawn; where no other has a weight, all others are as likely.
    """
    allowed = jnp.where(mixture.is_active, weight, 0.0)
    allowed = jnp.where(jnp.any(allowed > 0.0), allowed, mixture.is_active.astype(jnp.float32))
    component_key, point_key = jax.random.split(key)
    component = jax.random.categorical(component_key, jnp.log(allowed))
    factor = jnp.linalg.cholesky(mixture.covariance[component])
    return mixture.mean[component] + factor @ jax.random.normal(point_key, mixture.mean.shape[1:])
