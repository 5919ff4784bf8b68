"""Meta-gradients as a run: lives last, end, restart, and are independent of each other."""

import functools
import itertools
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import scaling
from metadisco.core import config
from metadisco.curricula.randomization import DomainRandomization
from metadisco.lives.critic import Critic
from metadisco.meta_training import gradient_trainer, memory_estimate
from metadisco.meta_training.truncation import Unroll
from metadisco.objectives.actor_critic import A2C
from metadisco.presets import registry
from tests.support import remembering, small, toy, two_states

TRAINER = small.gradient_trainer()


@functools.cache
def program():
    """The compiled meta-step."""
    return jax.jit(TRAINER.step).lower(jax.random.key(0), jax.device_get(small.begun(TRAINER))).compile()


def _go_on(step=None, state=None, num_steps=4):
    states, rows = [small.begun(TRAINER) if state is None else state], []
    step = program() if step is None else step
    for i in range(num_steps):
        state, metrics = step(jax.random.key(i), jax.device_get(states[-1]))  # one program: it is on two devices
        states.append(state)
        rows.append(metrics)
    return states, rows


@pytest.fixture(scope="module")
def history():
    return _go_on(num_steps=6)


def _data(tree):
    is_key = lambda leaf: jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)  # noqa: E731
    return jax.tree.map(lambda leaf: np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf), tree)


def test_all_meta_parameters_move(history):
    before, after = (TRAINER.meta_params(history[0][i]) for i in (0, -1))
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool(jnp.any(a != b)), before, after)))


def test_agents_and_critics_move(history):
    before, after = history[0][:2]
    for name, table in after.lives.life.agent_params.items():
        assert jnp.any(table != before.lives.life.agent_params[name]), name
    assert jnp.any(after.lives.life.critic.params["value"] != before.lives.life.critic.params["value"])


def test_lives_are_not_sent_around(history):
    sent = scaling.communicated(program().as_text())
    num_params = sum(leaf.size for leaf in jax.tree.leaves(TRAINER.meta_params(history[0][0])))
    assert sent.pop("all-reduce") == pytest.approx(4 * num_params, rel=0.3)  # the gradient, and some counts
    agents = sum(leaf.nbytes for leaf in jax.tree.leaves(history[0][0].lives.life.agent_params))
    assert sum(sent.values()) < agents / 2  # what new levels are made of


def test_nobody_lives_past_its_end(history):
    for state in history[0]:
        assert jnp.all(state.lives.life.num_updates <= state.lives.until)
        assert jnp.all(state.lives.until <= state.lives.life.task.lifetime)


def test_a_life_does_k_updates_or_what_is_left(history):
    for before, after, metrics in zip(history[0], history[0][1:], history[1], strict=False):
        done = np.where(before.lives.is_over, 0, before.lives.life.num_updates)
        np.testing.assert_array_equal(after.lives.life.num_updates, np.minimum(done + 2, after.lives.until))
        assert metrics["agent_updates"] == jnp.sum(after.lives.life.num_updates) - done.sum()


def test_lives_last_over_meta_steps_and_restart(history):
    keys = [_data(state.lives.life.key) for state in history[0]]
    same = np.array([(a == b).all(axis=1) for a, b in itertools.pairwise(keys)])
    over = np.array([state.lives.is_over for state in history[0][:-1]])
    np.testing.assert_array_equal(same, ~over)
    assert over.any()
    assert not over.all()


def test_a_restarted_life_has_a_new_task_agent_and_critic(history):
    state = history[0][2]
    state = state.replace(lives=state.lives.replace(until=state.lives.life.num_updates.at[1].add(1)))
    _, lives, _, _ = jax.jit(TRAINER.renew)(jax.random.key(9), state)
    is_new = np.array([True, False, True, True])
    np.testing.assert_array_equal(lives.life.num_updates == 0, is_new)
    np.testing.assert_array_equal(lives.until[is_new], lives.life.task.lifetime[is_new])
    for leaf in jax.tree.leaves((lives.life.agent_params, lives.life.critic.params)):
        assert not jnp.any(leaf[is_new])
    kept, was = (jax.tree.map(lambda leaf: leaf[1], _data(each)) for each in (lives, state.lives))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), kept, was))
    levels = zip(jax.tree.leaves(_data(lives.life.task)), jax.tree.leaves(_data(state.lives.life.task)), strict=True)
    assert any((a[is_new] != b[is_new]).any() for a, b in levels)


def test_first_lives_are_cut_short_at_different_times():
    curriculum = DomainRandomization(remembering.ShortLives())
    lives = small.begun(small.gradient_trainer(two_states.inner_loop(), curriculum, num_tasks=200)).lives
    assert len(set(lives.until.tolist())) > 2
    assert jnp.any(lives.until < lives.life.task.lifetime)
    assert jnp.min(lives.until) == 1


def test_fitness_is_that_of_lives_that_came_to_their_end(history):
    evaluate = jax.jit(partial(TRAINER.domain.inner.evaluate, slots=4))
    for state, metrics in zip(history[0][1:], history[1], strict=True):
        finished = state.lives.life.num_updates >= state.lives.life.task.lifetime
        assert metrics["finished"] == jnp.sum(finished)
        assert jnp.isfinite(metrics["fitness"]) == jnp.any(finished)
        if jnp.any(finished):
            expected = evaluate(state.lives.life)[finished]  # [lives, workers]
            np.testing.assert_allclose(metrics["fitness"], jnp.mean(expected), rtol=1e-5, atol=1e-6)


def test_a_life_that_is_not_a_number_is_counted_and_spares_the_others():
    state = small.begun(TRAINER)
    state = state.replace(lives=state.lives.replace(until=state.lives.life.task.lifetime))
    sick = jax.tree.map(lambda leaf: leaf.at[2].set(jnp.nan), state.lives.life.agent_params)
    infected = state.replace(lives=state.lives.replace(life=state.lives.life.replace(agent_params=sick)))
    (_, healthy), _ = _go_on(state=state, num_steps=1)
    (_, after), (metrics,) = _go_on(state=infected, num_steps=1)
    assert metrics["finite_fraction"] == 0.75
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(TRAINER.meta_params(after)))
    others = np.array([0, 1, 3])
    for name, table in after.lives.life.agent_params.items():
        np.testing.assert_allclose(table[others], healthy.lives.life.agent_params[name][others], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("num_tasks", [4, 5])
def test_one_and_two_devices_give_the_same(num_tasks, monkeypatch):
    assert jax.device_count() == 2
    trainer = small.gradient_trainer(num_tasks=num_tasks)
    both = _go_on(jax.jit(trainer.step), small.begun(trainer), 2)[0][-1]
    one = jax.make_mesh((1,), ("population",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:1])
    monkeypatch.setattr(gradient_trainer, "population_mesh", lambda: one)
    alone = _go_on(jax.jit(lambda key, state: trainer.step(key, state)), small.begun(trainer), 2)[0][-1]
    small.assert_trees_close(_data(both), _data(alone), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_slots_do_not_change_the_result(history):
    trainer = small.gradient_trainer(slots=1)
    state = _go_on(jax.jit(trainer.step), small.begun(trainer), 2)[0][-1]
    small.assert_trees_close(_data(state), _data(history[0][2]), rtol=1e-4, atol=1e-5)


def test_a_meta_step_compiles_once(history):
    """What comes out has the types of what went in."""
    begun, after = (
        jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype, getattr(leaf, "weak_type", False)), state)
        for state in (small.begun(TRAINER), history[0][-1])
    )
    assert begun == after


def test_a_run_cut_in_two_is_bit_identical(tmp_path):
    trainer = small.gradient_trainer(two_states.inner_loop(), DomainRandomization(remembering.ShortLives()))
    toy.run(trainer, tmp_path / "cut", steps=3)
    cut = toy.run(trainer, tmp_path / "cut", resume=True)
    whole = toy.run(trainer, tmp_path / "whole", chunk=6)
    assert cut.status == whole.status == "finished"
    assert jax.tree.all(jax.tree.map(lambda a, b: a.tobytes() == b.tobytes(), _data(cut.state), _data(whole.state)))
    assert toy.numbers_logged(tmp_path / "cut") == toy.numbers_logged(tmp_path / "whole")


@pytest.mark.slow
def test_the_preset_runs_at_a_tiny_size(tmp_path):
    trainer = config.replace_fields(
        registry.preset("lpg-grid-gradient").trainer,
        {"num_tasks": 2, "num_steps": 2, "inner.num_workers": 2, "inner.num_steps": 4, "inner.num_test_workers": 2},
    )
    result = toy.run(trainer, tmp_path / "run")
    assert result.status == "finished"
    assert config.from_data(config.to_data(trainer)) == trainer


def test_memory_grows_with_lives_and_with_updates_kept():
    base = memory_estimate.estimate(TRAINER)
    assert memory_estimate.estimate(small.gradient_trainer(num_tasks=40)) > 2 * base
    longer = small.gradient_trainer(unroll=Unroll(num_updates=20))
    assert (
        memory_estimate.estimate(longer)
        > memory_estimate.estimate(replace(longer, unroll=Unroll(num_updates=20, remat=True)))
        > base / 2
    )
    assert memory_estimate.estimate(longer) > 1.5 * base


def test_a_hand_written_objective_cannot_be_meta_trained():
    with pytest.raises(ValueError, match="nothing to meta-train"):
        small.altered(TRAINER, inner=small.inner_loop(A2C(), critic=Critic())).init(jax.random.key(0))


@pytest.mark.parametrize("field", ["num_tasks", "num_steps", "slots"])
def test_sizes_below_one_are_refused(field):
    with pytest.raises(ValueError, match=field):
        small.gradient_trainer(**{field: 0})


def test_meta_gradients_need_a_critic():
    with pytest.raises(ValueError, match=r"InnerLoop.critic"):
        small.altered(TRAINER, inner=small.inner_loop())
