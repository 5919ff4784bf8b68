"""ALP-GMM: tasks from where the score changes fastest (arXiv:1910.07224).

The absolute learning progress (ALP) of a task is how far its score is from that of the nearest task before it. A
mixture of Gaussians is fitted to features and ALP of the latest tasks; a new task is drawn from one of its components,
the more likely the higher the ALP there is. Either direction counts: what is being learned and what is being forgotten.

The score has to be a return (`Return()`, or `NormalizedScore(Return())` where levels pay differently): regret and value
losses are measures of progress already.
"""

from dataclasses import dataclass, replace

import chex
import jax
import jax.numpy as jnp
from flax import struct

from metadisco.core import trees
from metadisco.core.config import check_counts
from metadisco.core.jax_defaults import own_defaults
from metadisco.core.types import Key, Metrics, Task
from metadisco.curricula import gaussian_mixture
from metadisco.curricula.base import Proposal, propose_new
from metadisco.curricula.gaussian_mixture import GaussianMixture
from metadisco.curricula.task_features import TaskFeatures
from metadisco.curricula.tasks import TaskDistribution

NUM_REFERENCE = 256  # tasks that the scales of the features are measured on


@struct.dataclass
class ProgressState:
    """The latest H tasks that had a score, in a ring, and the mixture."""

    center: jax.Array  # [D] float32, of the features of the task distribution
    scale: jax.Array  # [D] float32, their standard deviation; 1 where they do not vary
    features: jax.Array  # [H, D] float32, standardized
    score: jax.Array  # [H] float32
    progress: jax.Array  # [H] float32, ALP
    has_progress: jax.Array  # [H] bool, whether there was an earlier task to compare with
    num_told: jax.Array  # [] int32, tasks so far that had a score; the next one goes to place num_told % H
    num_since_fit: jax.Array  # [] int32, tasks since the latest fit
    mixture: GaussianMixture  # K components in D + 1 dimensions, the last of which is ALP over the highest ALP
    is_fitted: jax.Array  # [] bool


@own_defaults
@dataclass(frozen=True)
class ALPGMM:
    """Each life gets a task near a point drawn from the mixture, or with a fixed probability any task.

    A level cannot be made to measure, so of some tasks drawn from the distribution the one is taken whose features are
    nearest to the point. Features are standardized by a sample of the distribution, and ALP is divided by the highest
    in the window, so the unit of the score does not matter.

    Attributes:
        tasks: what tasks are drawn from.
        features: of a task; progress is compared with the nearest task in them.
        num_candidates: tasks that are drawn for each life, of which the nearest to the point is taken.
        random_probability: of any task; until the first fit all are.
        fit_every: tasks between fits.
        window: latest tasks that the mixture is fitted to.
        num_remembered: H, latest tasks that later ones are compared with; at least `window`.
        min_components: fewest components that are tried.
        max_components: K, most of them; Akaike's criterion chooses.
        num_iterations: of expectation maximization.
        regularization: of the covariances, in squared standard deviations.

    Note:
        The paper compares with all tasks so far and draws task parameters themselves. Tasks whose lives end in the same
        meta-step had the same objective, so they are not compared with each other. Of equally near tasks the latest
        counts.

    Example:
        >>> from metadisco.curricula.task_features import GridFeatures
        >>> from metadisco.curricula.tasks import Tasks
        >>> from metadisco.envs.gridworld.levels import GridLevels
        >>> levels = GridLevels()
        >>> curriculum = ALPGMM(Tasks(levels), GridFeatures(levels.env))
        >>> state = curriculum.init(jax.random.key(0))
        >>> state.features.shape
        (2000, 5)
    """

    tasks: TaskDistribution
    features: TaskFeatures
    num_candidates: int = 16
    random_probability: float = 0.2
    fit_every: int = 250
    window: int = 250
    num_remembered: int = 2000
    min_components: int = 2
    max_components: int = 10
    num_iterations: int = 30
    regularization: float = 1e-3

    def __post_init__(self) -> None:
        check_counts(self, "num_candidates", "fit_every", "window", "min_components", "max_components")
        check_counts(self, "num_iterations", "num_remembered")
        if not 0.0 <= self.random_probability <= 1.0:
            raise ValueError(
                f"ALPGMM.random_probability must be in 0..1, got {self.random_probability}; write 0.2 for 20 per cent"
            )
        if self.window > self.num_remembered:
            raise ValueError(
                f"ALPGMM.window must be at most num_remembered = {self.num_remembered}, got {self.window}; raise "
                "num_remembered or lower window"
            )
        if not self.min_components <= self.max_components <= self.window:
            raise ValueError(
                f"ALPGMM needs min_components <= max_components <= window, got {self.min_components}, "
                f"{self.max_components} and {self.window}"
            )
        if not 0.0 < self.regularization < float("inf"):
            raise ValueError(
                f"ALPGMM.regularization must be above 0 and finite, got {self.regularization}; 0.001 is usual"
            )
        try:
            jax.eval_shape(self._describe, jax.eval_shape(jax.random.key, 0))
        except (AssertionError, AttributeError, TypeError) as error:
            raise ValueError(
                f"ALPGMM.features: {type(self.features).__name__} cannot describe these tasks "
                f"({str(error).strip().splitlines()[0]}); use GridFeatures(levels.env) for grid worlds and "
                "LevelNumbers() for levels of a few parameters"
            ) from error

    def check(self, num_tasks: int) -> None:
        """Raise ValueError where the tasks of one meta-step could not all be remembered."""
        if num_tasks > self.num_remembered:
            raise ValueError(
                f"ALPGMM.num_remembered must be at least the number of tasks of a meta-step, {num_tasks}, got "
                f"{self.num_remembered}; raise num_remembered or lower num_tasks"
            )

    def init(self, key: Key) -> ProgressState:
        """Nothing remembered; the scales of the features are measured on a sample of the distribution."""
        sample = jax.vmap(self._describe)(jax.random.split(key, NUM_REFERENCE))
        spread = jnp.std(sample, axis=0)
        num_features, size = sample.shape[1], self.num_remembered
        return ProgressState(
            center=jnp.mean(sample, axis=0),
            scale=jnp.where(spread > 1e-6, spread, 1.0),
            features=jnp.zeros((size, num_features), jnp.float32),
            score=jnp.zeros(size, jnp.float32),
            progress=jnp.zeros(size, jnp.float32),
            has_progress=jnp.zeros(size, bool),
            num_told=jnp.zeros((), jnp.int32),
            num_since_fit=jnp.zeros((), jnp.int32),
            mixture=gaussian_mixture.empty(self.max_components, num_features + 1),
            is_fitted=jnp.zeros((), bool),
        )

    def propose(self, key: Key, state: ProgressState, num_tasks: int) -> tuple[ProgressState, Proposal]:
        """Draw N tasks; `notes` are their standardized features, [N, D]."""

        def one(key: Key) -> tuple[Task, jax.Array]:
            task_key, choice_key, point_key = jax.random.split(key, 3)
            candidates = jax.vmap(self.tasks.sample)(jax.random.split(task_key, self.num_candidates))
            features = (jax.vmap(self.features.describe)(candidates) - state.center) / state.scale
            point = gaussian_mixture.sample(point_key, state.mixture, state.mixture.mean[:, -1])[:-1]
            nearest = jnp.argmin(jnp.sum((features - point) ** 2, axis=1))
            is_random = jax.random.bernoulli(choice_key, self.random_probability) | ~state.is_fitted
            chosen = jnp.where(is_random, 0, nearest)
            return trees.index((candidates, features), chosen)

        tasks, features = jax.vmap(one)(jax.random.split(key, num_tasks))
        return state, replace(propose_new(tasks), notes=features)

    def observe(
        self, key: Key, state: ProgressState, proposal: Proposal, scores: jax.Array, finished: jax.Array
    ) -> tuple[ProgressState, Metrics]:
        """Remember the tasks that have finished, and fit the mixture anew when that is due.

        A score that is not finite is left out and counted. Metrics: `progress` is the mean ALP of the tasks that have
        finished, `mixture_components` how many the mixture has (0 before the first fit).
        """
        chex.assert_equal_shape([scores, finished])
        counts = finished & jnp.isfinite(scores)
        progress = self._progress(state, proposal.notes, scores)
        has_progress = counts & (state.num_told > 0)
        state = self._remember(state, proposal.notes, scores, progress, counts)
        is_due = state.num_since_fit >= self.fit_every
        state = jax.lax.cond(is_due, self._fit, lambda _, state: state, key, state)
        num = jnp.maximum(jnp.sum(has_progress), 1)
        components = jnp.where(state.is_fitted, jnp.sum(state.mixture.is_active), 0)
        return state, {
            "progress": jnp.sum(jnp.where(has_progress, progress / num, 0.0)),
            "mixture_components": components.astype(jnp.float32),
            "nonfinite_scores": jnp.sum(finished & ~jnp.isfinite(scores)).astype(jnp.float32),
        }

    def _describe(self, key: Key) -> jax.Array:
        """Features of a task that is drawn, not standardized. [D] float32."""
        return self.features.describe(self.tasks.sample(key))

    def _age(self, state: ProgressState) -> jax.Array:
        """Tasks told since the one in each place, from 0 on; H where the place is empty. [H] int32."""
        size = self.num_remembered
        age = (state.num_told - 1 - jnp.arange(size)) % size
        return jnp.where(age < state.num_told, age, size)

    def _progress(self, state: ProgressState, features: jax.Array, scores: jax.Array) -> jax.Array:
        """ALP: |score - score of the nearest remembered task|. [N] float32; 0 where nothing is remembered."""
        age = self._age(state)
        distance = jnp.sum((features[:, None] - state.features) ** 2, axis=-1)
        distance = jnp.where(age < self.num_remembered, distance, jnp.inf)
        is_nearest = distance == jnp.min(distance, axis=1, keepdims=True)
        nearest = jnp.argmin(jnp.where(is_nearest, age, self.num_remembered), axis=1)
        progress = jnp.minimum(jnp.abs(scores - state.score[nearest]), jnp.finfo(jnp.float32).max)
        return jnp.where(state.num_told > 0, progress, 0.0)

    def _remember(
        self, state: ProgressState, features: jax.Array, scores: jax.Array, progress: jax.Array, counts: jax.Array
    ) -> ProgressState:
        """Put the tasks that count into the ring, in their order."""
        order = state.num_told + jnp.cumsum(counts) - 1
        places = jnp.where(counts, order % self.num_remembered, self.num_remembered)  # beyond the end: dropped
        num = jnp.sum(counts, dtype=jnp.int32)
        return replace(
            state,
            features=state.features.at[places].set(features, mode="drop"),
            score=state.score.at[places].set(scores, mode="drop"),
            progress=state.progress.at[places].set(progress, mode="drop"),
            has_progress=state.has_progress.at[places].set(state.num_told > 0, mode="drop"),
            num_told=state.num_told + num,
            num_since_fit=state.num_since_fit + num,
        )

    def _fit(self, key: Key, state: ProgressState) -> ProgressState:
        """Fit the mixture to the window, unless no task in it has an ALP."""
        age, recent = jax.lax.top_k(-self._age(state), self.window)  # which is far shorter than the ring
        counts = (-age < self.num_remembered) & state.has_progress[recent]
        progress = jnp.where(counts, state.progress[recent], 0.0)
        progress = progress / jnp.maximum(jnp.max(progress), 1e-12)
        mixture = gaussian_mixture.fit(
            key,
            jnp.concatenate([state.features[recent], progress[:, None]], axis=1),
            counts,
            min_components=self.min_components,
            max_components=self.max_components,
            num_iterations=self.num_iterations,
            regularization=self.regularization,
        )
        fitted = replace(state, mixture=mixture, is_fitted=jnp.ones((), bool), num_since_fit=jnp.zeros((), jnp.int32))
        return trees.where(jnp.any(counts), fitted, state)
