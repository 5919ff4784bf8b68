"""What is measured of objectives, where it is known: identities, linear objectives, finite differences."""

import io
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from metadisco.agents import distributions
from metadisco.checkpoints.checkpoint import Discovered
from metadisco.core import returns
from metadisco.envs.base import Box
from metadisco.objectives.actor_critic import A2C
from metadisco.objectives.drift import PPODrift
from metadisco.objectives.mirror_learning import MirrorLearning
from metadisco.reports.inspection import explain, figures, inspect, measures, probes, write
from metadisco.reports.inspection.probes import NUM_STEPS, Responder
from tests.support import small

KEY = jax.random.key(0)


@dataclass(frozen=True)
class Known:
    """The push is 2 r, or 2 r + n/N: nothing else."""

    is_scheduled: bool = False

    def heads(self, spec):
        return {"logits": spec.num_actions}

    def init(self, key):
        return ()

    def init_state(self, key, agent, agent_params, num_workers):
        return ()

    def targets(self, meta_params, state, predictions, trajectory, progress):
        return 2.0 * trajectory.reward + (progress.fraction if self.is_scheduled else 0.0), state

    def loss(self, meta_params, targets, outputs, trajectory, progress):
        return -jnp.mean(targets * distributions.log_prob_categorical(outputs["logits"], trajectory.action)), {}


def asked(objective, meta_params=()):
    """Probes and answers."""
    drawn = probes.draw(0, probes.heads_of(objective))
    responder = Responder(objective, meta_params)
    return responder, drawn, responder(drawn)


@pytest.fixture(scope="module")
def lpg():
    return Discovered(small.OBJECTIVE, small.OBJECTIVE.init(KEY))


@pytest.fixture(scope="module")
def found(lpg):
    return inspect(lpg)


def test_push_is_pi_hat(lpg):
    _, _, answer = asked(lpg.objective, lpg.meta_params)
    np.testing.assert_allclose(answer.push, answer.targets.pi_hat, rtol=1e-3, atol=1e-4)


def test_push_is_the_normalised_advantage_where_the_policy_has_not_moved():
    objective = MirrorLearning(PPODrift(), entropy_weight=0.0)
    responder, drawn, _ = asked(objective)
    answer = responder(drawn.replace(change=0.0 * drawn.change))
    normal = jax.vmap(returns.normalize)(answer.targets.advantage)
    np.testing.assert_allclose(answer.push, normal, rtol=1e-3, atol=1e-4)


def test_gain_of_entropy_is_what_a_small_step_gains():
    _, drawn, answer = asked(Known())
    logits, action = drawn.logits
    logits = logits + drawn.change
    step = 1e-3 * answer.push[..., None] * (jax.nn.one_hot(action, 4) - jax.nn.softmax(logits))
    gained = distributions.entropy_categorical(logits + step) - distributions.entropy_categorical(logits)
    np.testing.assert_allclose(answer.entropy, gained / 1e-3, rtol=0.1, atol=0.02)


def test_all_variance_is_of_the_only_input():
    responder, drawn, answer = asked(Known())
    shares = measures._sensitivity(responder, drawn, answer)
    assert shares.pop("reward")[0] == pytest.approx(1.0, abs=0.05)
    assert all(push < 1e-9 for push, _ in shares.values())
    assert measures._schedule(responder, drawn).change < 1e-6


def test_shares_are_those_of_a_linear_function():
    one, two = (jax.random.normal(key, (2000, 1, 1)) for key in jax.random.split(KEY))
    f = lambda one, two: np.asarray(2.0 * one + two)  # noqa: E731
    exchanged = jnp.roll(one, 1, axis=0)
    assert measures._share(f(one, two), f(exchanged, two)) == pytest.approx(0.8, abs=0.06)


def test_schedule_is_that_of_the_objective():
    responder, drawn, _ = asked(Known(is_scheduled=True))
    schedule = measures._schedule(responder, drawn)
    size = np.sqrt(np.mean(np.square(2.0 * drawn.reward + 0.5)))
    np.testing.assert_allclose(schedule.push_size[:, 5], size, rtol=1e-3)
    assert schedule.change == pytest.approx(1.0 / np.sqrt(4.0 + 0.35), rel=0.1)


def test_a_reward_is_credited_to_its_own_action_only_by_an_objective_that_does_so():
    responder, drawn, _ = asked(Known())
    credit = measures._credit(responder, drawn)
    np.testing.assert_allclose(credit[:, 0], [2.0, -2.0], rtol=1e-3)
    np.testing.assert_allclose(credit[:, 1:], 0.0, atol=1e-3)
    assert credit.shape == (2, NUM_STEPS)
    pushes, _ = measures._by_reward(responder, drawn)
    np.testing.assert_allclose(pushes, np.broadcast_to(2.0 * measures.REWARDS[:, None], pushes.shape), atol=1e-3)


def test_a2c_credits_by_its_discounts_and_gains_the_entropy_of_its_bonus():
    responder, drawn, _ = asked(A2C(gamma=0.9, gae_lambda=0.8, entropy_weight=0.1))
    expected = 0.72 ** np.arange(NUM_STEPS)
    np.testing.assert_allclose(measures._credit(responder, drawn), [expected, -expected], rtol=1e-3)
    gained = measures._schedule(responder, drawn).entropy
    slope = jax.grad(lambda logits: jnp.sum(distributions.entropy_categorical(logits)))(drawn.logits[0])
    np.testing.assert_allclose(gained, 0.1 * np.mean(np.sum(np.square(slope), axis=-1)), rtol=1e-3)


def test_entropy_begins_at_that_of_a_fresh_table(found):
    np.testing.assert_allclose(found.entropy[:, 0], np.log(5), rtol=1e-3)
    assert np.all(np.isfinite(found.entropy))


def test_what_needs_no_agents_compiles_one_program(lpg, caplog):
    """It is answered at once: compiling is what takes time, also of every single operation outside a program."""
    with jax.log_compiles(), caplog.at_level("DEBUG"):
        inspect(lpg, lives=False)
    compiled = [record.getMessage() for record in caplog.records if "Finished XLA compilation" in record.getMessage()]
    assert len(compiled) == 1, compiled


def test_an_objective_for_other_spaces_is_not_measured():
    @dataclass(frozen=True)
    class Continuous(Known):
        def heads(self, spec):
            if not isinstance(spec.action, Box):
                raise ValueError("needs continuous actions")
            return {}

    discovered = Discovered(Continuous(), ())
    assert inspect(discovered) is None
    text = io.StringIO()
    explain(discovered, None, Console(file=text, width=100))
    assert "Not measured" in text.getvalue()
    assert figures(discovered, None) == {}


def test_pictures_are_those_of_the_kind_of_objective(lpg, found, tmp_path):
    common = {"by-reward", "credit", "sensitivity", "entropy"}
    assert set(figures(lpg, found)) == common | {"schedule", "prediction"}
    still = replace(found, y_hat=None, schedule=replace(found.schedule, change=0.0))
    assert set(figures(Discovered(A2C(), ()), still)) == common
    assert set(figures(Discovered(MirrorLearning(), ()), still)) == {"sensitivity", "entropy"}
    paths = write(Discovered(A2C(), ()), still, tmp_path / "new")
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
    with pytest.raises(FileExistsError, match="--overwrite"):
        write(Discovered(A2C(), ()), still, tmp_path / "new")
