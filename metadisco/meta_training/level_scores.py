"""How informative a level is, said when a life on it has ended, from the evidence of that life.

A curriculum keeps and replays the levels with the highest scores. A score says what it needs: a critic beside the agent
(`InnerLoop.critic`), or an antagonist that lives on the same task. Trainers see to that, and a score is then a function
of what was found out, under evolution as by meta-gradients. Under evolution the better life of each pair counts.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

import jax
import jax.numpy as jnp
from flax import struct

from metadisco.core.jax_defaults import own_defaults
from metadisco.core.keys import KeyPurpose
from metadisco.core.types import Key, Task
from metadisco.lives.critic import CriticOutput
from metadisco.lives.life import InnerLoop, Life
from metadisco.meta_training.antagonists import Antagonist, LearningAntagonist, SolvedAntagonist, TrainedAntagonist


@struct.dataclass
class Evidence:
    """What is known of one life at its end."""

    key: Key  # [] of the life; for draws, fold it
    task: Task
    episode_return: jax.Array  # [num_test_workers] float32, undiscounted, of the trained agent
    antagonist_return: jax.Array  # [] float32, what the antagonist is expected to get; 0 where there is none
    critic_output: CriticOutput | None  # of a last rollout by the trained agent; None without a critic


class LevelScore(Protocol):
    """How worth playing a level is. What is not finite keeps the level out."""

    @property
    def uses_critic(self) -> bool:
        """Whether `evidence.critic_output` has to be there."""

    @property
    def antagonist(self) -> Antagonist | None:
        """Whose return `evidence.antagonist_return` is."""

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
            f"{type(score).__name__} compares values of different levels, and the normalizer gives each life a scale "
            "of its own; use Normalizer(rewards=False), or a score of returns such as Regret()"
        )
    if score.antagonist is None:
        return
    if not isinstance(score.antagonist, TrainedAntagonist | SolvedAntagonist):
        raise ValueError(
            f"{type(score).__name__}.antagonist must have inner_loop or expected_return, got {score.antagonist}; use "
            "LearningAntagonist(), RandomPolicy() or Expert()"
        )
    score.antagonist.check(inner)


def trained_antagonist(score: LevelScore, inner: InnerLoop) -> InnerLoop | None:
    """How an agent lives that each life is compared with; None where nobody else lives."""
    return score.antagonist.inner_loop(inner) if isinstance(score.antagonist, TrainedAntagonist) else None


@own_defaults
@dataclass(frozen=True)
class Return:
    """The return of the agent: levels on which much can be had."""

    uses_critic: ClassVar[bool] = False
    antagonist: ClassVar[None] = None

    def score(self, evidence: Evidence) -> jax.Array:
        """See the class."""
        return jnp.mean(evidence.episode_return)


@own_defaults
@dataclass(frozen=True)
class Uniform:
    """A random number: levels are kept and replayed whatever happens on them. The control of a comparison."""

    uses_critic: ClassVar[bool] = False
    antagonist: ClassVar[None] = None

    def score(self, evidence: Evidence) -> jax.Array:
        """See the class."""
        return jax.random.uniform(jax.random.fold_in(evidence.key, KeyPurpose.SCORE))


@own_defaults
@dataclass(frozen=True)
class Regret:
    """Return of an antagonist, less that of the agent.

    With an antagonist that learns, this is the algorithmic regret of GROOVE (arXiv:2310.02782): levels on which the
    objective is behind a hand-written one. With `Expert()` it is the optimal regret.

    Attributes:
        antagonist: whom to compare with.

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
        The paper takes the highest return of any agent on the level. An agent here begins from nothing on each level,
        and what earlier agents did on it is as old as the level's last life. R and V are discounted alike.
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


def score_lives(
    score: LevelScore,
    inner: InnerLoop,
    lives: Life,
    episode_returns: jax.Array,
    antagonist_returns: jax.Array,
    critic_outputs: CriticOutput | None,
    chosen: jax.Array,
) -> jax.Array:
    """Score lives at their end, one after the other: no work is done for the others.

    Args:
        score: how.
        inner: how they were lived.
        lives: leading axis M.
        episode_returns: [M, num_test_workers] float32; NaN for an agent that diverged.
        antagonist_returns: [M] float32.
        critic_outputs: leading axis M, or None.
        chosen: [M] bool, whom to score.

    Returns:
        [M] float32; NaN for those who were not chosen, and where an agent diverged.
    """

    def one(item: tuple[Evidence, jax.Array]) -> jax.Array:
        evidence, is_chosen = item
        is_finite = jnp.all(jnp.isfinite(evidence.episode_return))
        return jax.lax.cond(is_chosen & is_finite, ask, lambda _: jnp.full((), jnp.nan), evidence)

    def ask(evidence: Evidence) -> jax.Array:
        if isinstance(score.antagonist, SolvedAntagonist):
            theirs = score.antagonist.expected_return(inner, evidence.key, evidence.task)
            evidence = replace(evidence, antagonist_return=theirs)
        return score.score(evidence).astype(jnp.float32)

    evidence = Evidence(lives.key, lives.task, episode_returns, antagonist_returns, critic_outputs)
    return jax.lax.map(one, (evidence, chosen))


def _critic_output(evidence: Evidence) -> CriticOutput:
    if evidence.critic_output is None:
        raise ValueError("this score needs a critic, and InnerLoop.critic is None; use Critic()")
    return evidence.critic_output
