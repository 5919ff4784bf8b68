"""A life: one agent trained from scratch on one task with one objective.

A life carries its own key, and update n draws from `fold_in(key, n)`. Two lives with the same key and task
therefore see common random numbers, however they are batched: the basis of antithetic pairs and of exact
resumption.
"""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from flax import struct

from metadisco.agents.agent import Agent
from metadisco.agents.networks import Torso
from metadisco.agents.optimizers import OptState
from metadisco.core import keys, lowrank, trees
from metadisco.core.caching import once_for_equal
from metadisco.core.config import check_counts
from metadisco.core.jax_defaults import own_defaults
from metadisco.core.keys import KeyPurpose
from metadisco.core.types import AgentParams, Key, MetaParams, Metrics, Obs, Outcome, Progress, Task, Trajectory
from metadisco.envs import rollout
from metadisco.envs.base import Environment, EnvSpec, State
from metadisco.lives.critic import Critic, CriticOutput, CriticState
from metadisco.lives.learner import Learner
from metadisco.lives.normalization import Normalizer, NormalizerState
from metadisco.objectives.base import Objective, ObjectiveState, Targets, learned_optimizer
from metadisco.objectives.state import check_optimizer, check_state


@struct.dataclass
class InitialCondition:
    """Initial condition of a life: key and task. With the meta-parameters it determines the life."""

    key: Key  # []
    task: Task


@struct.dataclass
class Life:
    """Everything that changes while an agent learns, and the task it lives on."""

    key: Key  # [] of this life; never consumed, only folded
    task: Task
    agent_params: AgentParams
    opt_state: OptState
    objective_state: ObjectiveState  # state of the objective for this agent; () if stateless
    obs: Obs  # [B, ...]
    env_state: State  # [B, ...]
    num_updates: jax.Array  # [] int32
    critic: CriticState | None = None  # None without a critic
    normalizer: NormalizerState | None = None  # None without normalization

    @property
    def progress(self) -> Progress:
        """n and N."""
        return Progress(self.num_updates, self.task.lifetime)


@struct.dataclass
class UpdateBatch:
    """The data of one update."""

    trajectory: Trajectory  # [T, B], as the agent perceived it
    targets: Targets  # of the objective


@struct.dataclass
class EvaluationRollout:
    """State of an evaluation: one episode of a trained agent with each worker."""

    key: Key
    obs: Obs  # [B, ...]
    env_state: State  # [B, ...]
    episode_return: jax.Array  # [B] float32
    is_over: jax.Array  # [B] bool, whether the episode has ended
    num_rollouts: jax.Array  # [] int32, number of the next rollout, from `keys.FIRST_ROLLOUT` on


@own_defaults
@dataclass(frozen=True)
class InnerLoop:
    """The inner loop: environment, agent, objective and learner.

    Attributes:
        env: the environment.
        torso: function approximator of the agent.
        objective: the learning rule.
        learner: optimizers of the agent.
        num_workers: B, parallel environments of one agent.
        num_steps: T, rollout length.
        num_test_workers: episodes, one for each worker, from which the fitness of a trained agent is estimated.
        max_test_steps: evaluation episodes are cut after about this many steps, in case an environment never ends them.
        critic: value critic trained beside the agent, for outer losses and level scores. It does not affect the agent.
        normalizer: scales observations and rewards to about unit scale; None leaves them unchanged.
    """

    env: Environment
    torso: Torso
    objective: Objective
    learner: Learner = Learner()
    num_workers: int = 64
    num_steps: int = 20
    num_test_workers: int = 64
    max_test_steps: int = 10_000
    critic: Critic | None = None
    normalizer: Normalizer | None = None

    def __post_init__(self) -> None:
        check_counts(self, "num_workers", "num_steps", "num_test_workers", "max_test_steps")
        self.learner.check(self.num_steps, self.num_workers)
        if self.normalizer is not None:
            self.normalizer.check(self.env.spec)
        _check_fit(self.agent, self.objective, self.critic, self.num_steps, self.num_workers)

    @property
    def agent(self) -> Agent:
        """The agent that the objective asks for."""
        spec = self.env.spec
        return Agent(self.torso, spec, tuple(self.objective.heads(spec).items()))

    def begin(self, key: Key, task: Task) -> Life:
        """A new agent at the beginning of its life."""
        obs, env_state = rollout.begin(keys.split_initial(key).env, self.env, task.level, self.num_workers)
        return self.begin_at(key, task, obs, env_state)

    def begin_at(self, key: Key, task: Task, obs: Obs, env_state: State) -> Life:
        """A new agent whose workers have been reset already, to `obs` and `env_state`; the key is that of `begin`."""
        initial, agent = keys.split_initial(key), self.agent
        agent_params = agent.init(initial.agent)
        memory_key = jax.random.fold_in(initial.life, KeyPurpose.REMEMBER)
        return Life(
            key=initial.life,
            task=task,
            agent_params=agent_params,
            opt_state=self.learner.init(agent_params, learned_optimizer(self.objective)),
            objective_state=self.objective.init_state(memory_key, agent, agent_params, self.num_workers),
            obs=obs,
            env_state=env_state,
            num_updates=jnp.zeros((), jnp.int32),
            critic=self._begin_critic(jax.random.fold_in(initial.life, KeyPurpose.CRITIC)),
            normalizer=None if self.normalizer is None else self.normalizer.init(self.env.spec, self.num_workers),
        )

    def _begin_critic(self, key: Key) -> CriticState | None:
        return _begin_critic(self.critic, key, self.env.spec, self.num_workers)

    def act(self, life: Life, purpose: KeyPurpose = KeyPurpose.TRAIN) -> tuple[Trajectory, Obs, State]:
        """Rollout for the next update, or for another purpose: unnormalized observations and rewards.

        No gradient passes through it, since actions are sampled.
        """
        return rollout.rollout(
            keys.at_update(life.key, purpose, life.num_updates),
            self.env,
            life.task.level,
            self.policy(jax.lax.stop_gradient(life)),
            life.obs,
            life.env_state,
            num_steps=self.num_steps,
            draw=self.agent.noise,
        )

    def policy(self, life: Life) -> rollout.Policy:
        """The agent's policy as a function of noise and unnormalized observations."""
        act = self.agent.policy(life.agent_params)
        normalizer, state = self.normalizer, life.normalizer
        if normalizer is None or state is None:
            return act
        return lambda noise, obs: act(noise, normalizer.observe(state, obs))

    def perceive(self, life: Life, trajectory: Trajectory) -> Trajectory:
        """Normalize a rollout: the input of agent, objective and critic."""
        if self.normalizer is None or life.normalizer is None:
            return trajectory
        return self.normalizer.perceive(jax.lax.stop_gradient(life.normalizer), trajectory)

    def update(self, meta_params: MetaParams, life: Life) -> tuple[Life, Metrics]:
        """One agent update. Metrics are means over the rollout's steps."""
        life, _, metrics = self.learn(meta_params, life)
        return life, metrics

    def learn(self, meta_params: MetaParams, life: Life) -> tuple[Life, UpdateBatch, Metrics]:
        """`update`, and the data that it used. Differentiable with respect to the meta-parameters."""
        experience, obs, env_state = self.act(life)
        return self.learn_from(meta_params, replace(life, obs=obs, env_state=env_state), experience)

    def learn_from(
        self, meta_params: MetaParams, life: Life, experience: Trajectory
    ) -> tuple[Life, UpdateBatch, Metrics]:
        """`learn` from a given rollout, not yet normalized."""
        trajectory = self.perceive(life, experience)
        key = keys.at_update(life.key, KeyPurpose.SHUFFLE, life.num_updates)
        agent_params, opt_state, objective_state, targets, metrics = self.learner.update(
            key,
            self.agent,
            self.objective,
            meta_params,
            life.agent_params,
            life.opt_state,
            life.objective_state,
            trajectory,
            life.progress,
        )
        critic = life.critic
        if self.critic is not None and critic is not None:
            critic, metrics["critic_loss"] = self.critic.update(self.env.spec, critic, trajectory)
        life = replace(
            life,
            agent_params=agent_params,
            opt_state=opt_state,
            objective_state=objective_state,
            num_updates=life.num_updates + 1,
            critic=critic,
            normalizer=self._normalize_with(life, experience),
        )
        return life, UpdateBatch(trajectory, targets), {"reward": jnp.mean(experience.reward), **metrics}

    def _normalize_with(self, life: Life, experience: Trajectory) -> NormalizerState | None:
        if self.normalizer is None or life.normalizer is None:
            return None
        return jax.lax.stop_gradient(self.normalizer.update(life.normalizer, experience))

    def assess(self, life: Life, trajectory: Trajectory) -> CriticOutput:
        """Critic output for a normalized rollout. Raises ValueError without a critic."""
        if self.critic is None or life.critic is None:
            raise ValueError("InnerLoop.critic is None, so there are no values for a rollout; use Critic()")
        return self.critic.assess(self.env.spec, life.critic, trajectory)

    def live(self, population: MetaParams, initials: InitialCondition, *, slots: int) -> tuple[Life, Outcome]:
        """Run whole lives: initialize each agent, train it for its lifetime, evaluate it.

        Args:
            population: meta-parameters, one set for each life: leading axis M (see `metadisco.core.lowrank`).
            initials: leading axis M; lifetimes may differ, and no agent is trained beyond its own.
            slots: lives that run side by side.

        Returns:
            Final lives and their outcomes, leading axis M. The fitness of a diverged agent is NaN.
        """
        lives, metrics = self.spend(population, initials, slots=slots)
        fitness = jnp.mean(only_of_finite(lives, self.evaluate(lives, slots=slots)), axis=1)
        return lives, Outcome(fitness, lives.num_updates, metrics)

    def spend(self, population: MetaParams, initials: InitialCondition, *, slots: int) -> tuple[Life, Metrics]:
        """`live` without the evaluation: final lives and the means of their metrics. Leading axis M."""
        lives = jax.vmap(self.begin)(initials.key, initials.task)
        return self.advance(population, lives, initials.task.lifetime, slots=slots)

    def advance(self, population: MetaParams, lives: Life, until: jax.Array, *, slots: int) -> tuple[Life, Metrics]:
        """Train each agent until it has done `until` updates in all.

        Args:
            population: as in `live`.
            lives: leading axis M.
            until: [M] int32. A life that has done as many already is returned unchanged.
            slots: lives that run side by side.

        Returns:
            The lives, and the means of their metrics over the updates done here (0 where there were none), [M] each.
        """
        axes = lowrank.in_axes(population)
        update_one = jax.jit(self.update, inline=True)  # traced once for both of its uses
        names = jax.eval_shape(lambda: jax.vmap(update_one, in_axes=(axes, 0))(population, lives))[1]
        totals = {name: jnp.zeros(until.shape) for name in names}
        remaining = until - lives.num_updates

        def update(meta_params: MetaParams, item: tuple) -> tuple:
            life, totals, until = item
            life, metrics = update_one(meta_params, life)
            return life, jax.tree.map(jnp.add, totals, metrics), until

        lives, totals, _ = trees.stream(
            update,
            lambda item: item[0].num_updates < item[2],
            population,
            (lives, totals, until),
            slots=slots,
            order=jnp.argsort(-remaining).astype(jnp.int32),  # longest first
            take=lowrank.take,
            in_axes=axes,
        )
        return lives, jax.tree.map(lambda total: total / jnp.maximum(remaining, 1), totals)

    def evaluate(self, lives: Life, *, slots: int, chosen: jax.Array | None = None) -> jax.Array:
        """Undiscounted return of one episode of each of `num_test_workers` workers.

        Args:
            lives: leading axis M. They are not changed, since evaluation has its own workers.
            slots: lives evaluated side by side.
            chosen: [M] bool, which lives to evaluate; all by default. The others cost nothing.

        Returns:
            [M, num_test_workers] float32, 0 where not chosen.
        """
        evaluations = jax.vmap(self._begin_evaluation)(lives)
        if chosen is not None:
            evaluations = replace(evaluations, is_over=evaluations.is_over | ~chosen[:, None])
        num_lives = lives.num_updates.shape[0]
        evaluations = trees.stream(
            self._evaluate_further,
            self._evaluation_goes_on,
            lives,
            evaluations,
            slots=slots,
            order=jnp.arange(num_lives, dtype=jnp.int32),
        )
        return evaluations.episode_return

    def _begin_evaluation(self, life: Life) -> EvaluationRollout:
        key = keys.of_evaluation(life.key)
        obs, env_state = rollout.begin(keys.at_rollout(key, 0), self.env, life.task.level, self.num_test_workers)
        episode_return, is_over = rollout.no_returns(self.num_test_workers)
        return EvaluationRollout(key, obs, env_state, episode_return, is_over, jnp.int32(keys.FIRST_ROLLOUT))

    def _evaluation_goes_on(self, evaluation: EvaluationRollout) -> jax.Array:
        return ~jnp.all(evaluation.is_over) & self.is_within_test_limit(evaluation.num_rollouts)

    def is_within_test_limit(self, num_rollouts: jax.Array | int) -> jax.Array | bool:
        """Whether an evaluation may go on to the rollout of this number."""
        return num_rollouts * self.num_steps <= self.max_test_steps

    def _evaluate_further(self, life: Life, evaluation: EvaluationRollout) -> EvaluationRollout:
        trajectory, obs, env_state = rollout.rollout(
            keys.at_rollout(evaluation.key, evaluation.num_rollouts),
            self.env,
            life.task.level,
            self.policy(life),
            evaluation.obs,
            evaluation.env_state,
            num_steps=self.num_steps,
            draw=self.agent.noise,
        )
        episode_return, is_over = rollout.accumulate(evaluation.episode_return, evaluation.is_over, trajectory)
        return replace(
            evaluation,
            obs=obs,
            env_state=env_state,
            episode_return=episode_return,
            is_over=is_over,
            num_rollouts=evaluation.num_rollouts + 1,
        )


def _begin_critic(critic: Critic | None, key: Key, spec: EnvSpec, num_workers: int) -> CriticState | None:
    return None if critic is None else critic.init(key, spec, num_workers)


@once_for_equal(maxsize=256)
def _check_fit(agent: Agent, objective: Objective, critic: Critic | None, num_steps: int, num_workers: int) -> None:
    """Let a torso or an objective that does not fit fail here, not while compiling; once for equal components."""
    jax.eval_shape(agent.init, jax.random.key(0))
    jax.eval_shape(lambda key: _begin_critic(critic, key, agent.spec, num_workers), jax.random.key(0))
    check_state(objective, agent, num_steps, num_workers)
    check_optimizer(objective, agent)


def only_of_finite(lives: Life, returns: jax.Array) -> jax.Array:
    """Set the returns [M, ...] of diverged agents to NaN: of those with a non-finite parameter, statistic or state.

    A NaN policy still picks some action, so its return alone does not show that it diverged.
    """
    leaves = jax.tree.leaves((lives.agent_params, lives.normalizer, lives.objective_state))
    leaves = [leaf for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    is_finite = jnp.stack([jnp.all(jnp.isfinite(leaf), axis=range(1, leaf.ndim)) for leaf in leaves]).all(axis=0)
    return jnp.where(is_finite.reshape(-1, *[1] * (returns.ndim - 1)), returns, jnp.nan)
