"""Lives: reproducible, independent of how they are batched, and never longer than their lifetime."""

import functools
from dataclasses import dataclass, fields, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metadisco.agents.networks import CNN, MLP
from metadisco.agents.optimizers import SGD, Adam
from metadisco.core.trees import index
from metadisco.envs.gridworld.dynamics import GridWorld
from metadisco.lives.learner import Learner
from metadisco.lives.life import InitialCondition
from metadisco.objectives.actor_critic import A2C
from tests.support import remembering, small, two_states

# In the smallest environment, since how lives are batched does not depend on it.
INNER = two_states.inner_loop(small.OBJECTIVE, Learner(SGD(40.0), SGD(4.0)), critic=None, num_test_workers=4)
TWINS = np.array([0, 1, 2, 3, 4, 0])


@functools.cache
def beginnings():
    """Initial conditions and meta-parameters; the last is the first once more."""

    @jax.jit  # one program
    def draw():
        initials = InitialCondition(jax.random.split(jax.random.key(0), 5), remembering.tasks([4, 1, 3, 5, 2]))
        return index((initials, small.population(small.OBJECTIVE, 5)), TWINS)

    return draw()


BEGIN, UPDATE = jax.jit(INNER.begin), jax.jit(INNER.update)


@pytest.fixture(scope="module")
def ended():
    initials, population = beginnings()
    return jax.jit(lambda population, initials: INNER.live(population, initials, slots=2))(population, initials)


def _alone(i):
    """One life, update by update."""
    initial, meta_params = index(beginnings(), i)
    life = BEGIN(initial.key, initial.task)
    while life.num_updates < life.task.lifetime:
        life, _ = UPDATE(meta_params, life)
    return life


def test_everybody_lives_exactly_as_long_as_its_lifetime(ended):
    _, outcomes = ended
    assert outcomes.num_updates.tolist() == beginnings()[0].task.lifetime.tolist()
    assert len(set(outcomes.num_updates.tolist())) > 2


@pytest.mark.parametrize("i", [0, 3])
def test_a_life_in_a_population_equals_the_same_life_alone(ended, i):
    small.assert_trees_close(index(ended[0], i), _alone(i), rtol=1e-4, atol=1e-4)


def test_advancing_in_parts_equals_advancing_at_once(ended):
    initials, population = beginnings()
    lives = jax.jit(jax.vmap(INNER.begin))(initials.key, initials.task)
    advance = jax.jit(partial(INNER.advance, slots=5))
    for part in (2, 5):
        lives, _ = advance(population, lives, np.minimum(initials.task.lifetime, part))
    small.assert_trees_close(lives, ended[0], rtol=1e-4, atol=1e-4)


def test_the_same_key_and_task_give_common_random_numbers(ended):
    _, outcomes = ended
    assert outcomes.fitness[0] == outcomes.fitness[-1]  # a twin, in another slot
    assert len(set(outcomes.fitness.tolist())) > 1


def test_an_evaluation_is_one_episode_of_each_worker(ended):
    """Fitness by an explicit loop over steps, for the first life."""
    lives, outcomes = ended
    life = index(lives, 0)
    env, policy = INNER.env, jax.jit(INNER.agent.policy(life.agent_params))
    step = jax.jit(jax.vmap(env.step, in_axes=(0, 0, 0, None)))
    key = jax.random.fold_in(life.key, 1)
    obs, state = jax.vmap(env.reset, in_axes=(0, None))(env.noise(key, (4,)), life.task.level)
    total, over = np.zeros(4), np.zeros(4, bool)
    for number in range(1, 100):
        policy_key, env_key = jax.random.split(jax.random.fold_in(key, number))
        uniforms = jax.random.uniform(policy_key, (INNER.num_steps, 4))
        noises = env.noise(env_key, (INNER.num_steps, 4))
        for t in range(INNER.num_steps):
            action, _ = policy(uniforms[t], obs)
            noise = index(noises, t)
            obs, state, out = step(noise, state, action, life.task.level)
            total += np.where(over, 0.0, out.reward)
            over |= np.asarray(out.terminated | out.truncated)
        if over.all():
            break
    np.testing.assert_allclose(outcomes.fitness[0], total.mean(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("objective", [small.OBJECTIVE, A2C()])
def test_every_head_of_the_agent_moves(objective):
    inner = small.inner_loop(objective)
    initial, update = index(small.initials(1), 0), jax.jit(inner.update)
    before = after = jax.jit(inner.begin)(initial.key, initial.task)
    for _ in range(5):  # until some worker has met a reward
        after, _ = update(objective.init(jax.random.key(0)), after)
    for name, table in after.agent_params.items():
        assert jnp.any(table != before.agent_params[name]), name


PLAIN = two_states.inner_loop(learner=Learner(SGD(2.0, 0.5), SGD(1.0, 0.5)), critic=None)
RATES = {
    "learner.policy.learning_rate": 1.0,
    "learner.prediction.learning_rate": 2.0,
    "learner.policy.max_grad_norm": 0.01,
    "learner.prediction.max_grad_norm": 0.001,
}
A2C_NUMBERS = {"gamma": 0.5, "gae_lambda": 0.1, "value_weight": 0.1, "entropy_weight": 1.0}


@pytest.mark.parametrize("path", RATES)
def test_every_rate_of_the_inner_loop_matters(path):
    two_states.assert_matters(PLAIN, path, RATES[path], RATES)


@pytest.mark.parametrize("change", [{"learner": Learner(Adam(), SGD(1.0, 0.5))}, {"num_workers": 5}, {"num_steps": 7}])
def test_every_setting_of_the_inner_loop_matters(change):
    two_states.assert_different(PLAIN, replace(PLAIN, **change))


@pytest.mark.parametrize("name", A2C_NUMBERS)
def test_every_setting_of_a2c_matters(name):
    plain = two_states.inner_loop(A2C(), Learner(SGD(1.0, 100.0), SGD(1.0, 100.0)), critic=None)
    numbers = {f"objective.{each}": value for each, value in A2C_NUMBERS.items()}
    two_states.assert_matters(plain, f"objective.{name}", A2C_NUMBERS[name], numbers)


def test_numbers_that_are_arguments_of_a_program_do_what_settings_do():
    known = {"learner.policy.learning_rate": 2.0, "learner.policy.max_grad_norm": 0.5}
    argument = two_states.params_after_updates(PLAIN, values=known)
    small.assert_trees_close(argument, two_states.params_after_updates(PLAIN), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("torso", [MLP((8,)), CNN((4,), (8,))])
def test_networks_learn_from_planes(torso):
    levels = replace(small.LEVELS, planes=True)
    inner = replace(small.inner_loop(A2C()), env=levels.env, torso=torso, learner=Learner(Adam(), Adam()))
    initial = index(small.initials(1), 0)
    before = jax.jit(inner.begin)(initial.key, initial.task)
    after, metrics = jax.jit(inner.update)((), before)
    moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), before.agent_params, after.agent_params)
    assert all(jax.tree.leaves(moved)), moved
    assert all(jnp.isfinite(value) for value in metrics.values())


def test_a2c_finds_the_reward_of_a_small_level():
    inner = small.inner_loop(A2C(), num_workers=16, num_steps=10, num_test_workers=32)
    initials = small.initials(6, seed=3)
    initials = initials.replace(task=initials.task.replace(lifetime=jnp.full(6, 60, jnp.int32)))
    untrained = initials.replace(task=initials.task.replace(lifetime=jnp.full(6, 1, jnp.int32)))
    live = jax.jit(lambda initials: inner.live((), initials, slots=6)[1].fitness)
    assert jnp.mean(live(initials)) > jnp.mean(live(untrained)) + 0.2


def test_a_torso_that_does_not_fit_the_environment_is_refused_at_construction():
    with pytest.raises(ValueError, match="Table needs observations that are an index"):
        replace(small.inner_loop(), env=replace(small.LEVELS, planes=True).env)
    with pytest.raises(ValueError, match="CNN needs observations of shape"):
        replace(small.inner_loop(), torso=CNN())


@pytest.mark.parametrize("field", ["num_workers", "num_steps", "num_test_workers", "max_test_steps"])
def test_sizes_below_one_are_refused(field):
    with pytest.raises(ValueError, match=field):
        replace(small.inner_loop(), **{field: 0})


@dataclass(frozen=True)
class Costly(GridWorld):
    """The same, but resets are computed only where they are needed."""

    reset_is_costly = True


def test_costly_resets_change_nothing_but_the_work():
    plain = small.inner_loop(A2C())
    sizes = {field.name: getattr(plain.env, field.name) for field in fields(plain.env)}
    initial = index(small.initials(1), 0)
    life = jax.jit(plain.begin)(initial.key, initial.task)
    expected, obs, _ = jax.jit(plain.act)(life)
    costly = replace(plain, env=Costly(**sizes))
    trajectory, costly_obs, _ = jax.jit(costly.act)(life)
    jax.tree.map(np.testing.assert_array_equal, trajectory, expected)
    np.testing.assert_array_equal(costly_obs, obs)
