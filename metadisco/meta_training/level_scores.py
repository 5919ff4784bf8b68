"""Level scores: how informative a level is, computed when a life on it has ended.

A curriculum keeps and replays the levels with the highest scores. A score declares what it needs: a critic beside the
agent (`InnerLoop.critic`), or an antagonist on the same task. Trainers provide both, under evolution and by
meta-gradients. Under evolution the score is that of the better life of each pair.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

import jax
import jax.numpy as jnp
from flax import struct

from metadisco.core.jax_defaults import own_defaults
from metadisco.core.keys import KeyPurpose
from metadisco.core.types import Key, Task
from metadisco.envs.gridworld import oracle
from metadisco.lives.critic import CriticOutput
from metadisco.lives.life import InnerLoop, Life
from metadisco.meta_training.antagonists import (
    Antagonist,
    Expert,
    LearningAntagonist,
    RandomPolicy,
    SolvedAntagonist,
    TrainedAntagonist,
)

SMALLEST_SCALE = 1e-4  # of what a level pays: a smaller difference of two computed returns is rounding


@struct.dataclass
class Evidence:
    """Data of one finished life."""

    key: Key  # [] of the life; fold it before use
    task: Task
    episode_return: jax.Array  # [num_test_workers] float32, undiscounted, of the trained agent
    antagonist_return: jax.Array  # [] float32, expected return of the antagonist; 0 without one
    critic_output: CriticOutput | None  # of a last rollout by the trained agent; None without a critic
    random_return: jax.Array | None = None  # [] float32, expected return of the uniform policy; for `NormalizedScore`
    upper_return: jax.Array | None = None  # [] float32, of the optimum or the antagonist; for `NormalizedScore`


class LevelScore(Protocol):
    """A score of levels, higher is more informative. A level with a non-finite score is not kept."""

    @property
    def uses_critic(self) -> bool:
        """Whether `evidence.critic_output` is needed."""

    @property
    def antagonist(self) -> Antagonist | None:
        """The antagonist of `evidence.antagonist_return`; None if not needed."""

    def score(self, evidence: Evidence) -> jax.Array:
        """Score one life. [] float32."""


def check(score: LevelScore, inner: InnerLoop) -> None:
    """Raise ValueError where lives cannot be scored, and say what to use instead."""
    if score.uses_critic and inner.critic is None:
        raise ValueError(
            f"{type(score).__name__} needs InnerLoop.critic, which estimates values beside the agent; use Critic()"
        )
    if score.uses_critic and inner.normalizer is not None and inner.normalizer.rewards:
        raise ValueError(
            f"{type(score).__name__} compares values of different levels, and the normalizer scales the rewards of "
            "each life differently; use Normalizer(rewards=False), or a score of returns such as Regret()"
        )
    if isinstance(score, NormalizedScore):
        score.check(inner)
    if score.antagonist is None:
        return
    if not isinstance(score.antagonist, TrainedAntagonist | SolvedAntagonist):
        raise ValueError(
            f"{type(score).__name__}.antagonist must have inner_loop or expected_return, got {score.antagonist}; use "
            "LearningAntagonist(), RandomPolicy() or Expert()"
        )
    score.antagonist.check(inner)


def trained_antagonist(score: LevelScore, inner: InnerLoop) -> InnerLoop | None:
    """Inner loop of the score's antagonist; None if it has none that is trained."""
    return score.antagonist.inner_loop(inner) if isinstance(score.antagonist, TrainedAntagonist) else None


@own_defaults
@dataclass(frozen=True)
class Return:
    """The return of the agent."""

    uses_critic: ClassVar[bool] = False
    antagonist: ClassVar[None] = None

    def score(self, evidence: Evidence) -> jax.Array:
        """See the class."""
        return jnp.mean(evidence.episode_return)


@own_defaults
@dataclass(frozen=True)
class Uniform:
    """A random number: a control for comparisons of scores."""

    uses_critic: ClassVar[bool] = False
    antagonist: ClassVar[None] = None

    def score(self, evidence: Evidence) -> jax.Array:
        """See the class."""
        return jax.random.uniform(jax.random.fold_in(evidence.key, KeyPurpose.SCORE))


@own_defaults
@dataclass(frozen=True)
class Regret:
    """Return of an antagonist, less that of the agent.

    With an antagonist that learns, this is the algorithmic regret of GROOVE (arXiv:2310.02782): high on levels where
    the objective is worse than a hand-written one. With `Expert()` it is the optimal regret.

    Attributes:
        antagonist: the reference agent.

    Example:
        >>> from metadisco.meta_training.antagonists import Expert
        >>> Regret(Expert()).uses_critic
        False
    """

    antagonist: Antagonist = LearningAntagonist()
    uses_critic: ClassVar[bool] = False

    def score(self, evidence: Evidence) -> jax.Array:
        """See the class."""
        return evidence.antagonist_return - jnp.mean(evidence.episode_return)


@own_defaults
@dataclass(frozen=True)
class L1ValueLoss:
    """mean_t |A_t|, A the generalised advantage by the critic (arXiv:2010.03934)."""

    uses_critic: ClassVar[bool] = True
    antagonist: ClassVar[None] = None

    def score(self, evidence: Evidence) -> jax.Array:
        """See the class."""
        return jnp.mean(jnp.abs(_critic_output(evidence).advantage))


@own_defaults
@dataclass(frozen=True)
class PositiveValueLoss:
    """mean_t max(A_t, 0), A the generalised advantage by the critic (arXiv:2110.02439)."""

    uses_critic: ClassVar[bool] = True
    antagonist: ClassVar[None] = None

    def score(self, evidence: Evidence) -> jax.Array:
        """See the class."""
        return jnp.mean(jnp.maximum(_critic_output(evidence).advantage, 0.0))


@own_defaults
@dataclass(frozen=True)
class MaxMC:
    """mean_t (R - V(s_t)), R the highest discounted episode return of the life (arXiv:2110.02439).

    Note:
        The paper takes the highest return of any agent on the level. Here an agent is trained from scratch on each
        level, and only its own life counts. R and V have the same discount.
    """

    uses_critic: ClassVar[bool] = True
    antagonist: ClassVar[None] = None

    def score(self, evidence: Evidence) -> jax.Array:
        """See the class."""
        critic_output = _critic_output(evidence)
        return critic_output.best_return - jnp.mean(critic_output.value)


@own_defaults
@dataclass(frozen=True)
class Learnability:
    """p (1 - p), p the share of the trained agent's episodes that succeed (arXiv:2408.15099).

    Attributes:
        threshold: an episode succeeds if its undiscounted return is above it.
    """

    threshold: float = 0.0
    uses_critic: ClassVar[bool] = False
    antagonist: ClassVar[None] = None

    def score(self, evidence: Evidence) -> jax.Array:
        """See the class."""
        success = jnp.mean(evidence.episode_return > self.threshold)
        return success * (1.0 - success)


@own_defaults
@dataclass(frozen=True)
class NormalizedScore:
    """Another score, on the scale of the level: returns are 0 for the random policy and 1 for the best one.

        R <- (R - R_random) / (R_upper - R_random)    values and advantages <- themselves / (R_upper - R_random)

    The wrapped score is computed from these, so that levels with large rewards are not preferred for their rewards, and
    a threshold or a temperature means the same on all of them. R_upper is the optimal return where levels can be solved
    exactly (`envs.gridworld.oracle`), and elsewhere that of the score's own antagonist.

    Attributes:
        base: the score.
        limit: scores are clipped to -limit..limit: where there is little to win, luck is many times as large.

    Note:
        A level on which nothing can be won, with R_upper not above R_random, scores 0. R_random is computed where
        levels can be solved, and elsewhere estimated from `num_test_workers` episodes.

    Example:
        >>> NormalizedScore(Regret()).antagonist == Regret().antagonist
        True
    """

    base: LevelScore
    limit: float = 2.0

    def __post_init__(self) -> None:
        if isinstance(self.base, NormalizedScore):
            raise ValueError("NormalizedScore.base is normalized already; give the score that it wraps")
        if not 0.0 < self.limit < float("inf"):
            raise ValueError(
                f"NormalizedScore.limit must be above 0 and finite, got {self.limit}; a regret is in 0..1 unless the "
                "agent is worse than random, so 2 keeps nearly all"
            )

    @property
    def uses_critic(self) -> bool:
        """As for the score."""
        return self.base.uses_critic

    @property
    def antagonist(self) -> Antagonist | None:
        """As for the score."""
        return self.base.antagonist

    def check(self, inner: InnerLoop) -> None:
        """Raise ValueError where the score cannot be computed, or levels have no upper end."""
        check(self.base, inner)
        if _is_solvable(inner):
            return
        if self.antagonist is None or isinstance(self.antagonist, RandomPolicy):
            raise ValueError(
                f"NormalizedScore needs the return of a good agent on each level: {type(inner.env).__name__} cannot be "
                f"solved exactly, and the antagonist of {type(self.base).__name__} is {self.antagonist}; use "
                "NormalizedScore(Regret()) with an antagonist that learns, or the score as it is"
            )

    def measured(self, inner: InnerLoop, evidence: Evidence) -> Evidence:
        """Add both ends of the level's scale to the evidence, whose `antagonist_return` is known."""
        if not _is_solvable(inner):
            lower = RandomPolicy().expected_return(inner, evidence.key, evidence.task)
            return replace(evidence, random_return=lower, upper_return=evidence.antagonist_return)
        env, level = oracle.tabular(inner.env), evidence.task.level
        is_known = isinstance(self.antagonist, Expert)
        upper = evidence.antagonist_return if is_known else oracle.optimal_return(env, level)
        return replace(evidence, random_return=oracle.random_return(env, level), upper_return=upper)

    def score(self, evidence: Evidence) -> jax.Array:
        """See the class."""
        lower, upper = evidence.random_return, evidence.upper_return
        if lower is None or upper is None:
            raise ValueError("NormalizedScore needs both ends of the level's scale; see NormalizedScore.measured")
        scale = upper - lower
        is_worth = scale > SMALLEST_SCALE * jnp.maximum(jnp.abs(upper), jnp.abs(lower))
        unit = jnp.where(is_worth, scale, 1.0)
        scaled = replace(
            evidence,
            episode_return=(evidence.episode_return - lower) / unit,
            antagonist_return=(evidence.antagonist_return - lower) / unit,
            critic_output=jax.tree.map(lambda value: value / unit, evidence.critic_output),
        )
        return jnp.where(is_worth, jnp.clip(self.base.score(scaled), -self.limit, self.limit), 0.0)


def score_lives(
    score: LevelScore,
    inner: InnerLoop,
    lives: Life,
    episode_returns: jax.Array,
    antagonist_returns: jax.Array,
    critic_outputs: CriticOutput | None,
    chosen: jax.Array,
) -> jax.Array:
    """Score finished lives, one after the other; the others cost nothing.

    Args:
        score: the level score.
        inner: inner loop of the lives.
        lives: leading axis M.
        episode_returns: [M, num_test_workers] float32; NaN for an agent that diverged.
        antagonist_returns: [M] float32.
        critic_outputs: leading axis M, or None.
        chosen: [M] bool, which lives to score.

    Returns:
        [M] float32; NaN where not chosen and where the agent diverged.
    """

    def one(item: tuple[Evidence, jax.Array]) -> jax.Array:
        evidence, is_chosen = item
        is_finite = jnp.all(jnp.isfinite(evidence.episode_return))
        return jax.lax.cond(is_chosen & is_finite, ask, lambda _: jnp.full((), jnp.nan), evidence)

    def ask(evidence: Evidence) -> jax.Array:
        if isinstance(score.antagonist, SolvedAntagonist):
            theirs = score.antagonist.expected_return(inner, evidence.key, evidence.task)
            evidence = replace(evidence, antagonist_return=theirs)
        if isinstance(score, NormalizedScore):
            evidence = score.measured(inner, evidence)
        return score.score(evidence).astype(jnp.float32)

    evidence = Evidence(lives.key, lives.task, episode_returns, antagonist_returns, critic_outputs)
    return jax.lax.map(one, (evidence, chosen))


def _is_solvable(inner: InnerLoop) -> bool:
    try:
        oracle.tabular(inner.env)
    except ValueError:
        return False
    return True


def _critic_output(evidence: Evidence) -> CriticOutput:
    if evidence.critic_output is None:
        raise ValueError("this score needs a critic, and InnerLoop.critic is None; use Critic()")
    return evidence.critic_output
