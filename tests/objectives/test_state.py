"""What an objective remembers goes where the life goes: exact, batched, resumed, spread, differentiated, refused."""

from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metadisco.agents.networks import MLP
from metadisco.agents.optimizers import Adam
from metadisco.core.sharding import population_mesh, scatter
from metadisco.core.trees import index
from metadisco.core.types import Task
from metadisco.curricula.randomization import DomainRandomization
from metadisco.envs.host import Hosted, Workers
from metadisco.lives import host
from metadisco.lives.learner import Learner
from metadisco.lives.life import InitialCondition, only_of_finite
from metadisco.meta_optimizers.base import repeat
from metadisco.meta_optimizers.evolution import Evolution
from metadisco.meta_training import gradient_trainer
from metadisco.meta_training.antagonists import LearningAntagonist
from metadisco.meta_training.level_scores import Regret
from metadisco.meta_training.truncation import Unroll
from metadisco.runs.compiled_steps import compile_chunk, step_key
from tests.support import probes, remembering, small, toy, two_states
from tests.support.corridor import Corridor, HostCorridor
from tests.support.remembering import Remembering, tasks

INNER = remembering.inner_loop()
OBJECTIVE = INNER.objective
META_PARAMS = jax.jit(OBJECTIVE.init)(jax.random.key(0))
LIFETIMES = [5, 1, 4, 2]
HALVES = slice(0, 4), slice(4, 8)
INITIALS = InitialCondition(jax.random.split(jax.random.key(3), 4), tasks(LIFETIMES))


@dataclass(frozen=True)
class WithoutMeta:
    """The same, hand-written: an antagonist that remembers, in a tuple."""

    def heads(self, spec):
        return OBJECTIVE.heads(spec)

    def init(self, key):
        return ()

    def init_state(self, key, agent, agent_params, num_workers):
        return (OBJECTIVE.init_state(key, agent, agent_params, num_workers),)

    def targets(self, meta_params, state, predictions, trajectory, progress):
        targets, state = OBJECTIVE.targets(META_PARAMS, *state, predictions, trajectory, progress)
        return targets, (state,)

    def loss(self, *arguments):
        return OBJECTIVE.loss(*arguments)


TRAINER = small.gradient_trainer(
    INNER, DomainRandomization(remembering.ShortLives()), score=Regret(LearningAntagonist(WithoutMeta()))
)


@pytest.fixture(scope="module")
def ended():
    population = jax.tree.map(lambda leaf: jnp.stack([leaf] * 4), META_PARAMS)
    return jax.jit(lambda population: INNER.live(population, INITIALS, slots=2)[0])(population)


_begin, _act, _update = (jax.jit(method) for method in (INNER.begin, INNER.act, INNER.update))


def _begin_unroll(unroll=TRAINER.unroll):
    return jax.jit(partial(unroll.begin, INNER))(INITIALS.key[0], index(INITIALS.task, 0))


def _by_hand(life, num_updates):
    """Moments of a life in NumPy, and the life: rewards are those that it is about to learn from."""
    state = life.objective_state
    count, mean, total = int(state.count), np.float32(state.mean), np.asarray(state.total)
    slow = {name: np.asarray(leaf) for name, leaf in state.slow.items()}
    for _ in range(num_updates):
        reward = np.asarray(_act(life)[0].reward)
        count, mean = count + 1, mean + np.float32(0.5) * (reward.mean(dtype=np.float32) - mean)
        total = total + reward.sum(axis=0)
        slow = {name: leaf + np.float32(0.5) * (life.agent_params[name] - leaf) for name, leaf in slow.items()}
        life, _ = _update(META_PARAMS, life)
    return (count, mean, total, slow), life


def _assert_remembered(state, expected):
    count, mean, total, slow = expected
    assert state.count == count
    np.testing.assert_array_equal(state.mean, mean)
    np.testing.assert_array_equal(state.total, total)
    small.assert_trees_close(state.slow, slow, rtol=1e-5, atol=1e-6)


def test_an_agent_is_remembered_from_its_first_parameters_on():
    life = _begin(INITIALS.key[0], index(INITIALS.task, 0))
    state = life.objective_state
    assert (int(state.count), float(state.mean), state.total.tolist()) == (0, 0.0, [0.0] * 4)
    small.assert_trees_close(state.slow, life.agent_params, rtol=0.0, atol=0.0)


@pytest.mark.parametrize("i", [0, 2])
def test_moments_of_whole_lives_are_those_of_a_numpy_loop(ended, i):
    expected, _ = _by_hand(_begin(INITIALS.key[i], index(INITIALS.task, i)), LIFETIMES[i])
    assert expected[1] > 0.0
    _assert_remembered(index(ended.objective_state, i), expected)


def test_the_counter_is_the_number_of_updates(ended):
    assert ended.objective_state.count.tolist() == ended.num_updates.tolist() == LIFETIMES


def test_moments_of_unrolls_are_those_of_a_numpy_loop():
    unroll = Unroll(num_updates=2)
    unroll_state = _begin_unroll(unroll)
    expected, _ = _by_hand(unroll_state.life, 5)
    run = jax.jit(jax.grad(partial(unroll.advance, INNER), has_aux=True))
    for _ in range(3):  # 2 + 2 + 1 updates, the last one masked
        _, ((unroll_state, _), _) = run(META_PARAMS, unroll_state)
    _assert_remembered(unroll_state.life.objective_state, expected)


def test_the_meta_gradient_passes_through_the_state():
    """The rate of an earlier update matters again in the later ones, through the moving average."""
    two_states.check_slope(INNER, META_PARAMS, Unroll(num_updates=3))


def test_the_state_before_an_unroll_is_a_constant():
    unroll_state = _begin_unroll()

    def loss(mean):
        state = unroll_state.life.objective_state.replace(mean=mean)
        return TRAINER.unroll.advance(
            INNER, META_PARAMS, unroll_state.replace(life=unroll_state.life.replace(objective_state=state))
        )

    slope = jax.jit(jax.value_and_grad(loss, has_aux=True))
    values, slopes = zip(*(slope(jnp.float32(mean)) for mean in (0.0, 3.0)))
    assert slopes == (0.0, 0.0)
    assert values[0][0] != values[1][0]  # which matters nevertheless


def test_minibatches_count_as_one_update():
    learner = Learner(Adam(), Adam(), num_epochs=2, num_minibatches=2)
    inner = remembering.inner_loop(learner=learner, critic=None)

    @jax.jit
    def first_update():
        return inner.update(META_PARAMS, inner.begin(INITIALS.key[0], index(INITIALS.task, 0)))[0]

    life = first_update()
    assert life.objective_state.count == life.num_updates == 1


def test_lives_on_the_host_remember_what_lives_in_jax_do():
    learner = Learner(Adam(1e-2), Adam(1e-2), num_epochs=2, num_minibatches=2)
    in_jax = probes.inner_loop(Corridor(), OBJECTIVE, learner, MLP((8,)), num_workers=4, num_steps=6)
    on_host = replace(in_jax, env=Hosted(HostCorridor()))
    initial = InitialCondition(jax.random.key(1), Task((), jnp.int32(3)))
    expected = jax.jit(in_jax.begin)(initial.key, initial.task)
    update = jax.jit(in_jax.update)
    for _ in range(3):
        expected, _ = update(META_PARAMS, expected)
    life = host.begin(on_host, initial)
    with Workers(HostCorridor(), 4, training=True, seed=host.seed_of(initial.key)) as workers:
        life, _ = host.advance(on_host, META_PARAMS, life, workers, 3)
    assert life.objective_state.count == life.num_updates == 3
    small.assert_trees_close(life.objective_state, expected.objective_state, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def history():
    """States before and after each of some meta-steps, by the program that runs have."""
    advance, placement = compile_chunk(TRAINER)
    copy = jax.jit(lambda state: jax.tree.map(jnp.copy, state))  # a state is given away to the next
    state = jax.device_put(small.begun(TRAINER), placement)
    states = [copy(state)]
    for _ in range(5):
        state, _ = advance(0, state, 1)
        states.append(copy(state))
    return states


def test_a_life_that_lasts_over_meta_steps_keeps_its_state_and_a_new_one_begins_anew(history):
    ages = np.stack([state.lives.life.num_updates for state in history])
    np.testing.assert_array_equal(np.stack([state.lives.life.objective_state.count for state in history]), ages)
    assert (np.diff(ages, axis=0) < 0).any()  # some were renewed
    assert ages.max() > TRAINER.unroll.num_updates  # some lasted


def test_an_antagonist_has_the_state_of_its_own_objective(history):
    (memory,) = history[-1].antagonists.objective_state
    assert memory.count.tolist() == history[-1].antagonists.num_updates.tolist()
    assert history[-1].antagonists.num_updates.tolist() == history[-1].lives.life.num_updates.tolist()


def test_a_run_cut_in_two_is_bit_identical(tmp_path):
    toy.run(TRAINER, tmp_path / "cut", steps=3)
    cut = toy.run(TRAINER, tmp_path / "cut", resume=True)
    whole = toy.run(TRAINER, tmp_path / "whole", chunk=6)
    lives, antagonists = cut.state.lives.life, cut.state.antagonists
    for state, num_updates in (
        (lives.objective_state, lives.num_updates),
        (*antagonists.objective_state, antagonists.num_updates),
    ):
        assert state.count.tolist() == num_updates.tolist()
    small.assert_trees_close(cut.state, whole.state, rtol=0.0, atol=0.0)


def test_one_and_two_devices_give_the_same(history, monkeypatch):
    assert jax.device_count() == 2
    one = jax.make_mesh((1,), ("population",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:1])
    monkeypatch.setattr(gradient_trainer, "population_mesh", lambda: one)
    step = jax.jit(lambda key, state: TRAINER.step(key, state))  # traced anew
    alone, _ = step(step_key(jax.random.key(0), 0), small.begun(TRAINER))
    small.assert_trees_close(alone.lives, history[1].lives, rtol=1e-4, atol=1e-5)


def test_whole_lives_on_two_devices_remember_the_same(ended):
    population = jax.tree.map(lambda leaf: jnp.stack([leaf] * 4), META_PARAMS)

    def live(population, initials):
        return INNER.live(population, initials, slots=1)[0]

    work, mesh = INITIALS.task.lifetime, population_mesh()
    assert mesh.size == 2
    lives = jax.jit(lambda: scatter(live, population, INITIALS, work=work, mesh=mesh))()
    small.assert_trees_close(lives.objective_state, ended.objective_state, rtol=1e-4, atol=1e-5)


def test_both_members_of_an_antithetic_pair_begin_with_the_same_state():
    optimizer = Evolution()

    @jax.jit
    def ask_and_begin():
        state = optimizer.init(jax.random.key(0), META_PARAMS, 4)
        population, _ = optimizer.ask(jax.random.key(1), state, 4)
        initials = repeat(INITIALS, optimizer.replicas)
        states = jax.vmap(INNER.begin)(initials.key, initials.task).objective_state
        return population["rate"], *(jax.tree.map(lambda leaf: leaf[half], states) for half in HALVES)  # noqa: B023

    rate, plus, minus = ask_and_begin()
    small.assert_trees_close(plus, minus, rtol=0.0, atol=0.0)
    assert np.all(np.asarray(rate)[:4] != np.asarray(rate)[4:])
    assert len({tuple(key) for key in jax.random.key_data(plus.key).tolist()}) == 4  # one for each task


def test_an_agent_whose_state_is_not_finite_has_diverged(ended):
    state = ended.objective_state
    returns = jnp.ones((4, 2))
    assert jnp.all(only_of_finite(ended, returns) == 1.0)
    sick = ended.replace(objective_state=state.replace(mean=state.mean.at[1].set(jnp.inf)))
    np.testing.assert_array_equal(jnp.isnan(only_of_finite(sick, returns)).any(axis=1), [False, True, False, False])


@dataclass(frozen=True)
class OldProtocol:
    """Knows of no state."""

    def heads(self, spec):
        return {"logits": spec.num_actions}

    def init(self, key):
        return ()

    def targets(self, meta_params, predictions, trajectory, progress):
        return trajectory.reward


@dataclass(frozen=True)
class OldArguments(OldProtocol):
    """Has a state, and is not told of it."""

    def init_state(self, key, agent, agent_params, num_workers):
        return ()


@dataclass(frozen=True)
class TargetsOnly(OldArguments):
    """Does not say what the state becomes."""

    def targets(self, meta_params, state, predictions, trajectory, progress):
        return trajectory.reward


@dataclass(frozen=True)
class ForgetsIt(Remembering):
    """Returns () in the place of the state."""

    def targets(self, *arguments):
        return super().targets(*arguments)[0], ()


@dataclass(frozen=True)
class ChangesDtype(Remembering):
    """Counts in floats."""

    def targets(self, *arguments):
        targets, state = super().targets(*arguments)
        return targets, state.replace(count=state.count + 0.5)


@dataclass(frozen=True)
class ChangesShape(Remembering):
    """Grows."""

    def targets(self, *arguments):
        targets, state = super().targets(*arguments)
        return targets, state.replace(total=jnp.append(state.total, 0.0))


@dataclass(frozen=True)
class PythonNumber(Remembering):
    """Begins with what is no array."""

    def init_state(self, *arguments):
        return super().init_state(*arguments).replace(count=0)


@pytest.mark.parametrize(
    ("objective", "complaint"),
    [
        (OldProtocol(), r"OldProtocol has no init_state\(.*\(targets, state\) from targets\("),
        (OldArguments(), r"OldArguments.targets does not take .*: define targets\(meta_params, state, pred"),
        (TargetsOnly(), r"TargetsOnly.targets returns a .*: return \(targets, state\), with \(\)"),
        (ForgetsIt(), r"ForgetsIt.targets must return \(targets, state\).* and \(\) after"),
        (ChangesDtype(), r"\.count: int32\[\].* before and .*\.count: float32\[\].* after an update"),
        (ChangesShape(), r"\.total: float32\[4\].* before and .*\.total: float32\[5\].* after an update"),
        (PythonNumber(), r"PythonNumber.init_state gives state.count as 0: every leaf .* jnp.zeros"),
    ],
    ids=lambda each: type(each).__name__,
)
def test_an_objective_that_does_not_keep_its_state_is_refused_at_construction(objective, complaint):
    with pytest.raises(ValueError, match=complaint):
        two_states.inner_loop(objective)
