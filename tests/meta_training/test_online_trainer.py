"""Online evolution as a run: pairs of lives last, end, restart, and with one unroll each are whole-life evolution."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metadisco.core import config
from metadisco.lives.critic import Critic
from metadisco.meta_optimizers.evolution import Evolution
from metadisco.meta_optimizers.online_evolution import GuidedES, NoiseReuseES, PersistentES, TruncatedES
from metadisco.meta_optimizers.shaping import PairwiseDifference
from metadisco.meta_training import memory_estimate, nan_search, online_trainer
from metadisco.meta_training.antagonists import LearningAntagonist
from metadisco.meta_training.evolution_trainer import EvolutionTrainer
from metadisco.meta_training.level_scores import Regret
from metadisco.meta_training.truncation import Unroll
from metadisco.presets import registry
from tests.support import small, toy, two_states

TRAINER = small.online_trainer()
STEP = jax.jit(TRAINER.step)
ASK = jax.jit(TRAINER.ask)


def _go_on(step, state, num_steps):
    states, rows = [state], []
    for i in range(num_steps):
        state, metrics = step(jax.random.key(i), states[-1])
        states.append(jax.device_get(state))  # one program: what comes back is on two devices
        rows.append(jax.device_get(metrics))
    return states, rows


@pytest.fixture(scope="module")
def history():
    return _go_on(STEP, jax.device_get(small.begun(TRAINER)), 5)


def _data(tree):
    is_key = lambda leaf: jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)  # noqa: E731
    return jax.tree.map(lambda leaf: np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf), tree)


def _same(left, right):
    return jax.tree.all(jax.tree.map(lambda a, b: a.tobytes() == b.tobytes(), _data(left), _data(right)))


@pytest.mark.parametrize("estimator", [PersistentES(), pytest.param(TruncatedES(), marks=pytest.mark.slow)])
def test_with_one_unroll_per_life_a_meta_step_is_that_of_evolution(estimator):
    """No lifetime is above 5, and some are below: tasks, noise, agents, fitness and update are the same."""
    online = small.online_trainer(estimator, num_updates=5)
    whole = EvolutionTrainer(online.domains, Evolution(shaping=PairwiseDifference()), num_steps=1)
    state, wanted = small.begun(online), small.begun(whole)
    np.testing.assert_array_equal(state.lanes.lives.until[:, 0], state.lanes.proposal.tasks.lifetime)
    state = replace(state, lanes=replace(state.lanes, lives=replace(state.lanes.lives, until=jnp.zeros((4, 2)))))
    wanted = replace(wanted, meta=whole.meta_optimizer.init(jax.random.key(0), online.meta_params(state), 4))
    state, metrics = jax.jit(online.step)(jax.random.key(0), state)
    wanted, expected = jax.jit(whole.step)(jax.random.key(0), wanted)
    small.assert_trees_close(online.meta_params(state), whole.meta_params(wanted), rtol=1e-4, atol=1e-6)
    for name in ("fitness", "score", "pair_gap", "agent_updates", "env_steps", "lifetime", "reward", "loss"):
        np.testing.assert_allclose(metrics[name], expected[name], rtol=1e-5, atol=1e-6, err_msg=name)
    np.testing.assert_allclose(metrics["gain"], metrics["fitness"], rtol=1e-6)
    assert metrics["finished"] == 4


def test_pairs_do_k_updates_or_what_is_left_and_restart_when_they_are_over(history):
    was_over = []
    for before, after, metrics in zip(history[0], history[0][1:], history[1], strict=False):
        over, lives = before.lanes.lives.life.num_updates >= before.lanes.lives.until, after.lanes.lives
        done = np.where(over, 0, before.lanes.lives.life.num_updates)
        np.testing.assert_array_equal(lives.life.num_updates, np.minimum(done + 2, lives.until))
        assert metrics["agent_updates"] == np.sum(lives.life.num_updates) - done.sum()
        assert metrics["env_steps"] == metrics["agent_updates"] * 4 * 6
        np.testing.assert_array_equal(lives.life.num_updates[:, 0], lives.life.num_updates[:, 1])
        same_key = (_data(before.lanes.lives.life.key) == _data(lives.life.key)).all(axis=(1, 2))
        np.testing.assert_array_equal(same_key, ~over[:, 0])
        was_over.append(over[:, 0])
    assert np.any(was_over)
    assert not np.all(was_over)


def test_a_pair_begins_as_one_agent_and_parts(history):
    state = history[0][-1]
    asked, population, _, _ = ASK(jax.random.key(9), state)
    lives, is_new = asked.lanes.lives.life, np.asarray(state.lanes.lives.is_over[:, 0])
    assert is_new.any()
    for name, table in lives.agent_params.items():
        np.testing.assert_array_equal(table[is_new, 0], table[is_new, 1])
        assert jnp.all(jnp.any(table[~is_new, 0] != table[~is_new, 1], axis=(-1, -2))), name
    assert not np.any(asked.lanes.returns[is_new])
    mean = TRAINER.meta_params(state)["w"]
    np.testing.assert_allclose(population["w"][:, 0] + population["w"][:, 1], np.tile(2 * mean, (4, 1)), rtol=1e-5)


def test_truncated_pairs_begin_every_unroll_as_one_agent(history):
    """As the first of the two, whose return is also what the next gains are counted from."""
    state = history[0][-1]
    trainer = small.online_trainer(TruncatedES())
    renewed, goes_on = jax.jit(trainer.renew)(jax.random.key(0), jax.random.key(1), state)
    assert goes_on.any()
    for name, table in renewed.lanes.lives.life.agent_params.items():
        np.testing.assert_array_equal(table[:, 0], table[:, 1])
        np.testing.assert_array_equal(table[goes_on, 1], state.lanes.lives.life.agent_params[name][goes_on, 0])
    np.testing.assert_array_equal(renewed.lanes.returns[goes_on, 1], state.lanes.returns[goes_on, 0])


def test_the_gains_of_a_life_add_up_to_its_fitness(history):
    evaluate = jax.jit(partial(TRAINER.domain.inner.evaluate, slots=4))
    for i, (before, after) in enumerate(zip(history[0], history[0][1:], strict=False)):
        flat = jax.tree.map(lambda leaf: leaf.reshape(8, *leaf.shape[2:]), after.lanes.lives.life)
        expected = np.mean(evaluate(flat), axis=1).reshape(4, 2)
        np.testing.assert_allclose(after.lanes.returns, expected, rtol=1e-5, atol=1e-6)
        over = before.lanes.lives.life.num_updates >= before.lanes.lives.until
        gains = expected - np.where(over, 0.0, before.lanes.returns)
        np.testing.assert_allclose(history[1][i]["gain"], gains.mean(), rtol=1e-4, atol=1e-6)
        lifetime = after.lanes.proposal.tasks.lifetime
        finished = after.lanes.lives.life.num_updates[:, 0] >= lifetime
        assert history[1][i]["finished"] == finished.sum()
        if finished.any():
            np.testing.assert_allclose(history[1][i]["fitness"], expected[finished].mean(), rtol=1e-5)
        else:
            assert np.isnan(history[1][i]["fitness"])


@pytest.mark.slow
def test_anytime_tells_returns_and_not_gains(history):
    trainer, state = small.online_trainer(anytime=True), history[0][2]
    after, metrics = jax.jit(trainer.step)(jax.random.key(2), state)
    np.testing.assert_allclose(metrics["gain"], jnp.mean(after.lanes.returns), rtol=1e-5)
    np.testing.assert_array_equal(after.lanes.returns, history[0][3].lanes.returns)
    assert metrics["gain"] != history[1][2]["gain"]


def test_first_lives_are_cut_short_by_whole_unrolls():
    lanes = small.begun(small.online_trainer(num_tasks=200)).lanes
    cut = lanes.proposal.tasks.lifetime - lanes.lives.until[:, 0]
    assert set((cut % 2).tolist()) == {0}
    assert set(cut.tolist()) == {0, 2, 4}
    assert jnp.min(lanes.lives.until) == 1


def test_a_pair_that_diverges_is_told_and_over_and_spares_the_others(history):
    state = history[0][1]
    state = replace(state, lanes=replace(state.lanes, lives=replace(state.lanes.lives, until=np.full((4, 2), 5))))
    sick = {name: table.copy() for name, table in state.lanes.lives.life.agent_params.items()}
    sick["logits"][2, 1] = np.nan
    life = replace(state.lanes.lives.life, agent_params=sick)
    infected = replace(state, lanes=replace(state.lanes, lives=replace(state.lanes.lives, life=life)))
    (_, healthy), _ = _go_on(STEP, state, 1)
    (_, after), (metrics,) = _go_on(STEP, infected, 1)
    assert metrics["finite_fraction"] == 7 / 8
    assert np.isfinite(TRAINER.meta_params(after)["w"]).all()
    np.testing.assert_array_equal(after.lanes.lives.is_over[:, 0], [False, False, True, False])
    others = np.array([0, 1, 3])
    np.testing.assert_array_equal(after.lanes.returns[others], healthy.lanes.returns[others])
    asked, _, _, _ = ASK(jax.random.key(7), after)
    assert jnp.isfinite(asked.lanes.lives.life.agent_params["logits"]).all()
    with pytest.raises(FloatingPointError):
        nan_search.find_in_unrolls(TRAINER, jax.random.key(0), infected)


@pytest.mark.parametrize("num_tasks", [4, pytest.param(3, marks=pytest.mark.slow)])
def test_one_and_two_devices_give_the_same(num_tasks, monkeypatch, history):
    assert jax.device_count() == 2
    trainer = small.online_trainer(num_tasks=num_tasks)
    begun = history[0][0] if num_tasks == 4 else jax.device_get(small.begun(trainer))
    both = history[0][:3] if num_tasks == 4 else _go_on(jax.jit(trainer.step), begun, 2)[0]
    one = jax.make_mesh((1,), ("population",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:1])
    monkeypatch.setattr(online_trainer, "population_mesh", lambda: one)
    alone = _go_on(jax.jit(lambda key, state: trainer.step(key, state)), begun, 2)[0]
    small.assert_trees_close(_data(both[-1]), _data(alone[-1]), rtol=1e-4, atol=1e-5)


def test_a_run_cut_in_two_is_bit_identical(tmp_path):
    trainer = small.online_trainer(num_steps=4)
    toy.run(trainer, tmp_path / "cut", steps=2)
    cut = toy.run(trainer, tmp_path / "cut", resume=True)
    whole = toy.run(trainer, tmp_path / "whole", chunk=4)
    assert cut.status == whole.status == "finished"
    assert _same(cut.state, whole.state)
    assert toy.numbers_logged(tmp_path / "cut") == toy.numbers_logged(tmp_path / "whole")


def test_a_meta_step_compiles_once(history):
    """What comes out has the types of what went in."""
    begun, after = (
        jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype, getattr(leaf, "weak_type", False)), state)
        for state in (history[0][0], history[0][-1])
    )
    assert begun == after


GUIDED = {"guidance": GuidedES(num_directions=2), "guide": Unroll(num_updates=2), "inner": two_states.inner_loop()}


@pytest.mark.slow
def test_the_guide_is_the_meta_gradient_of_the_first_lives():
    trainer = small.online_trainer(**GUIDED)
    state = small.begun(trainer)
    asked, _, _, metrics = jax.jit(trainer.ask)(jax.random.key(0), state)
    first = jax.tree.map(lambda leaf: leaf[:, 0], asked.lanes.lives)

    @jax.jit
    @jax.grad
    def gradient(meta_params):
        losses = jax.vmap(lambda each: trainer.guide.advance(trainer.domain.inner, meta_params, each)[0])(first)
        return jnp.mean(losses)

    newest, older = asked.meta.directions
    np.testing.assert_allclose(newest, gradient(trainer.meta_params(state))["w"], rtol=1e-3, atol=1e-6)
    assert not older.any()
    left = jnp.minimum(first.until - first.life.num_updates, 2)
    assert metrics["guide_rollouts"] == jnp.sum(left) + 4


@pytest.mark.slow
@pytest.mark.parametrize("estimator", [PersistentES(), NoiseReuseES(), TruncatedES()])
def test_guided_runs_resume_too(estimator, tmp_path):
    trainer = small.online_trainer(estimator, num_steps=4, **GUIDED)
    toy.run(trainer, tmp_path / "cut", steps=2)
    cut = toy.run(trainer, tmp_path / "cut", resume=True)
    assert _same(cut.state, toy.run(trainer, tmp_path / "whole", chunk=4).state)


@pytest.mark.slow
def test_antagonists_and_scores_of_finished_levels():
    trainer = small.online_trainer(
        inner=two_states.inner_loop(), score=Regret(LearningAntagonist(learner=two_states.inner_loop().learner))
    )
    for state, metrics in zip(*_go_on(jax.jit(trainer.step), small.begun(trainer), 4), strict=False):
        lanes = state.lanes
        np.testing.assert_array_equal(lanes.antagonists.num_updates, lanes.lives.life.num_updates[:, 0])
        assert metrics["agent_updates"] % 3 == 0
        assert np.isfinite(metrics["score"]) == (metrics["finished"] > 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lpg-grid-pes", "scheduled-a2c-nres"])
def test_the_presets_run_at_a_tiny_size(name, tmp_path):
    trainer = config.replace_fields(
        registry.preset(name).trainer,
        {"num_tasks": 2, "num_steps": 2, "inner.num_workers": 2, "inner.num_steps": 4, "inner.num_test_workers": 2},
    )
    assert toy.run(trainer, tmp_path / "run").status == "finished"
    assert config.from_data(config.to_data(trainer)) == trainer


def test_memory_grows_with_lives_and_with_a_guide():
    base = memory_estimate.estimate(TRAINER)
    assert memory_estimate.estimate(small.online_trainer(num_tasks=40)) > 2 * base
    plain = small.online_trainer(inner=two_states.inner_loop())
    guided = small.online_trainer(**(GUIDED | {"guide": Unroll(num_updates=50)}))
    assert memory_estimate.estimate(guided) > 1.5 * memory_estimate.estimate(plain)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_updates": 0}, "num_updates must be at least 1"),
        ({"num_steps": 0}, "num_steps"),
        ({"meta_optimizer": Evolution()}, "use EvolutionTrainer"),
        ({"domains": TRAINER.domains * 2}, "use EvolutionTrainer"),
        ({"meta_optimizer": replace(TRAINER.meta_optimizer, guidance=GuidedES())}, r"InnerLoop.critic"),
    ],
)
def test_what_cannot_work_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        replace(TRAINER, **settings)


def test_a_guide_needs_a_critic_and_says_so():
    with pytest.raises(ValueError, match=r"use Critic\(\)"):
        small.online_trainer(guidance=GuidedES(), inner=two_states.inner_loop(critic=None))
    assert small.online_trainer(guidance=GuidedES(), inner=two_states.inner_loop(critic=Critic())).is_guided
