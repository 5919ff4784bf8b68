"""Every check of metadisco.testing catches what it is there for: components that are broken in one way each."""

from dataclasses import dataclass, field, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metadisco.core.types import Task
from metadisco.curricula.base import propose_new
from metadisco.curricula.randomization import DomainRandomization
from metadisco.envs.base import Box, Discrete, EnvSpec, Step
from metadisco.meta_optimizers.evolution import Evolution
from metadisco.meta_optimizers.gradient import GradientState, MetaGradient
from metadisco.meta_optimizers.schedules import Decay
from metadisco.objectives.actor_critic import A2C, A2CTargets
from metadisco.testing import check_curriculum, check_environment, check_meta_optimizer, check_objective

YES, NO = jnp.bool_(True), jnp.bool_(False)
LEVEL = jnp.float32(1.0)


class Hall:
    """A walk along a hall of five cells; the last one ends the episode."""

    spec = EnvSpec(Discrete(5), Discrete(2))

    def noise(self, key, shape):
        return jax.random.uniform(key, shape)

    def reset(self, noise, level):
        return jnp.int32(0), jnp.int32(0)

    def step(self, noise, state, action, level):
        state = state + (noise < 0.9)
        return state, state, Step(level * action, state == 4, NO)


@dataclass(frozen=True)
class Whole(Hall):
    """Nothing is broken."""


@dataclass
class Mutable(Hall):
    """Not frozen."""


@dataclass(frozen=True)
class HoldsAList(Hall):
    """No hash."""

    sizes: list = field(default_factory=lambda: [1, 2])


@dataclass(frozen=True)
class HashesByIdentity(Hall):
    """Equal, but of another hash."""

    def __hash__(self):
        return id(self)


@dataclass(frozen=True)
class LooksAtAValue(Hall):
    """`if` on an array."""

    def step(self, noise, state, action, level):
        if noise < 0.5:
            state = state + 1
        return state, state, Step(level, state == 4, NO)


@dataclass(frozen=True)
class FloatObservation(Hall):
    """Against its spec."""

    def reset(self, noise, level):
        return jnp.float32(0), jnp.int32(0)


@dataclass(frozen=True)
class ChangingState(Hall):
    """int32 becomes float32."""

    def step(self, noise, state, action, level):
        obs, state, out = super().step(noise, state, action, level)
        return obs, state + noise, out


@dataclass(frozen=True)
class IntegerReward(Hall):
    """Not float32."""

    def step(self, noise, state, action, level):
        obs, state, out = super().step(noise, state, action, level)
        return obs, state, out.replace(reward=action)


@dataclass(frozen=True)
class FlatNoise(Hall):
    """One number for all steps."""

    def noise(self, key, shape):
        return jax.random.uniform(key, shape[:1])


@dataclass(frozen=True)
class OutOfBounds(Hall):
    """Observes 5 of 0..4."""

    def step(self, noise, state, action, level):
        obs, state, out = super().step(noise, state, action, level)
        return obs + 1, state, out


@dataclass(frozen=True)
class EndsTwice(Hall):
    """Terminated and truncated."""

    def step(self, noise, state, action, level):
        obs, state, out = super().step(noise, state, action, level)
        return obs, state, out.replace(truncated=out.terminated)


@dataclass(frozen=True)
class ResetsItself(Hall):
    """The observation of the next episode in the place of the last of this one."""

    def step(self, noise, state, action, level):
        obs, state, out = super().step(noise, state, action, level)
        obs = jnp.where(out.terminated, 0, obs)
        return obs, obs, out


@dataclass(frozen=True)
class NoNumber(Hall):
    """0 / 0."""

    def step(self, noise, state, action, level):
        obs, state, out = super().step(noise, state, action, level)
        return obs, state, out.replace(reward=out.reward / (state - 4))


@dataclass(frozen=True)
class DrawsElsewhere(Hall):
    """Numbers that are not from its noise: fixed once compiled, new in every plain call."""

    def step(self, noise, state, action, level):
        obs, state, out = super().step(noise, state, action, level)
        return obs, state, out.replace(reward=jnp.float32(np.random.default_rng().normal()))


def test_a_whole_environment_passes():
    check_environment(Whole(), LEVEL)
    check_environment(Whole(), LEVEL, run=False)


@pytest.mark.parametrize(
    ("env", "complaint"),
    [
        (Mutable(), "not a frozen dataclass"),
        (HoldsAList(), "use tuples"),
        (HashesByIdentity(), "different hashes"),
        (LooksAtAValue(), "jnp.where"),
        (FloatObservation(), "its spec, Discrete.num=5., says int32"),
        (ChangingState(), "int32.* before and float32.* after"),
        (IntegerReward(), "Step.reward of IntegerReward is int32"),
        (FlatNoise(), "begun by .3, 2."),
    ],
    ids=lambda each: type(each).__name__,
)
def test_a_broken_environment_is_found_without_compiling(env, complaint):
    with pytest.raises(AssertionError, match=complaint):
        check_environment(env, LEVEL, run=False)


@pytest.mark.parametrize(
    ("env", "complaint"),
    [
        (OutOfBounds(), "to 5: its spec"),
        (EndsTwice(), "terminated and truncated at once"),
        (ResetsItself(), "resets on its own"),
        (NoNumber(), "reward of NoNumber is not finite"),
        (DrawsElsewhere(), "depend on its arguments only"),
    ],
    ids=lambda each: type(each).__name__,
)
def test_a_broken_environment_is_found_by_walking(env, complaint):
    with pytest.raises(AssertionError, match=complaint):
        check_environment(env, LEVEL, num_steps=12)


def test_a_level_of_python_numbers_is_found():
    with pytest.raises(AssertionError, match="make every leaf an array"):
        check_environment(Whole(), 1.0, run=False)


class Regression:
    """Policy gradient on the reward, with a weight that is learned and a value that follows the reward."""

    features = ("reward",)

    def heads(self, spec):
        return A2C().heads(spec)

    def init(self, key):
        return {"w": jax.random.normal(key, (2,))}

    def init_state(self, key, agent, agent_params, num_workers):
        return ()

    def targets(self, meta_params, state, predictions, trajectory, progress):
        w = meta_params["w"]
        return A2CTargets(w[0] + w[1] * trajectory.reward, trajectory.reward), state

    def loss(self, meta_params, targets, outputs, trajectory, progress):
        return A2C().loss((), targets, outputs, trajectory, progress)


@dataclass(frozen=True)
class WholeObjective(Regression):
    """Nothing is broken."""


@dataclass(frozen=True)
class NoPolicy(Regression):
    """Asks for no logits."""

    def heads(self, spec):
        return {"value": 1}


@dataclass(frozen=True)
class SameStart(Regression):
    """Does not use its key."""

    def init(self, key):
        return {"w": jnp.ones(2)}


@dataclass(frozen=True)
class NoFeatures(Regression):
    """Does not say what it reads."""

    features = None


@dataclass(frozen=True)
class MeanTargets(Regression):
    """Targets without steps."""

    def targets(self, meta_params, state, predictions, trajectory, progress):
        targets, state = super().targets(meta_params, state, predictions, trajectory, progress)
        return jax.tree.map(jnp.mean, targets), state


@dataclass(frozen=True)
class VectorLoss(Regression):
    """A loss for each step."""

    def loss(self, meta_params, targets, outputs, trajectory, progress):
        return outputs["value"][..., 0], {}


@dataclass(frozen=True)
class IdleHead(Regression):
    """A head that nothing learns from."""

    def heads(self, spec):
        return super().heads(spec) | {"y": 3}


@dataclass(frozen=True)
class IdleWeight(Regression):
    """A meta-parameter that is not used."""

    def init(self, key):
        return super().init(key) | {"idle": jax.random.normal(key, (3,))}


@dataclass(frozen=True)
class NormalizedReward(Regression):
    """0 / 0 where nothing was rewarded."""

    def targets(self, meta_params, state, predictions, trajectory, progress):
        reward = trajectory.reward / jnp.std(trajectory.reward)
        return super().targets(meta_params, state, predictions, trajectory.replace(reward=reward), progress)


@dataclass(frozen=True)
class VectorMetric(Regression):
    """A metric that is no scalar."""

    def loss(self, meta_params, targets, outputs, trajectory, progress):
        loss, _ = super().loss(meta_params, targets, outputs, trajectory, progress)
        return loss, {"reward": trajectory.reward}


class Baseline(Regression):
    """The same, with a moving average of the reward as a baseline."""

    def init_state(self, key, agent, agent_params, num_workers):
        return {"count": jnp.zeros((), jnp.int32), "mean": jnp.zeros(())}

    def targets(self, meta_params, state, predictions, trajectory, progress):
        mean = 0.9 * state["mean"] + 0.1 * jnp.mean(trajectory.reward)
        w, advantage = meta_params["w"], trajectory.reward - mean
        return A2CTargets(w[0] + w[1] * advantage, advantage), {"count": state["count"] + 1, "mean": mean}


@dataclass(frozen=True)
class WholeBaseline(Baseline):
    """Nothing is broken."""


@dataclass(frozen=True)
class NoState(Regression):
    """The protocol of an earlier version."""

    init_state = None


@dataclass(frozen=True)
class CountsInFloats(Baseline):
    """int32 becomes float32."""

    def targets(self, *arguments):
        targets, state = super().targets(*arguments)
        return targets, state | {"count": state["count"] * 1.0}


@dataclass(frozen=True)
class WeakState(Baseline):
    """A Python number as the first mean."""

    def init_state(self, *arguments):
        return super().init_state(*arguments) | {"mean": jnp.asarray(0.0)}

    def targets(self, meta_params, state, *arguments):
        return super().targets(meta_params, state | {"mean": state["mean"].astype(jnp.float32)}, *arguments)


@dataclass(frozen=True)
class LooksAtItsState(Baseline):
    """`if` on an array."""

    def targets(self, meta_params, state, *arguments):
        if state["count"] > 3:
            state = state | {"mean": jnp.zeros(())}
        return super().targets(meta_params, state, *arguments)


@dataclass(frozen=True)
class DrawsFromNumpy(Baseline):
    """A state that does not follow from the key."""

    def init_state(self, *arguments):
        return super().init_state(*arguments) | {"mean": jnp.full((), np.random.default_rng().normal(), jnp.float32)}


@dataclass(frozen=True)
class InfiniteState(Baseline):
    """Infinity for "nothing yet"."""

    def init_state(self, *arguments):
        return super().init_state(*arguments) | {"mean": jnp.full((), -jnp.inf, jnp.float32)}


@dataclass(frozen=True)
class LaterNaN(Baseline):
    """Whole in the first update, 0 / 0 in the second one."""

    def targets(self, meta_params, state, *arguments):
        targets, after = super().targets(meta_params, state, *arguments)
        return targets, after | {"mean": after["mean"] * (1 - state["count"]) / (1 - state["count"])}


@dataclass(frozen=True)
class ScaleOfRewards(Baseline):
    """0 / 0 where nothing was rewarded, in the state only."""

    def init_state(self, *arguments):
        return super().init_state(*arguments) | {"share": jnp.zeros(())}

    def targets(self, meta_params, state, predictions, trajectory, progress):
        targets, after = super().targets(meta_params, state, predictions, trajectory, progress)
        reward = jnp.abs(trajectory.reward)
        return targets, after | {"share": jnp.max(reward) / jnp.sum(reward)}


@dataclass(frozen=True)
class IdleState(Baseline):
    """Counts, and does nothing with it."""

    def init_state(self, *arguments):
        return {"count": jnp.zeros((), jnp.int32)}

    def targets(self, meta_params, state, *arguments):
        return Regression.targets(self, meta_params, (), *arguments)[0], {"count": state["count"] + 1}


def test_a_whole_objective_passes():
    check_objective(WholeObjective())


def test_a_whole_objective_that_remembers_passes():
    check_objective(WholeBaseline())


@pytest.mark.parametrize(
    ("objective", "complaint"),
    [
        (NoPolicy(), "without the {'logits': 3} of the policy"),
        (SameStart(), "same numbers for two keys"),
        (NoFeatures(), "no `features`"),
        (MeanTargets(), "must begin with .T, B."),
        (VectorLoss(), "take jnp.mean"),
        (IdleHead(), "'y' of IdleHead has no derivative"),
        (IdleWeight(), "'idle'.* of IdleWeight make no difference"),
        (NormalizedReward(), "where nothing is rewarded"),
        (VectorMetric(), "'reward' of VectorMetric"),
        (NoState(), r"NoState has no init_state\(.*\(targets, state\)"),
        (CountsInFloats(), "'count'.: int32.* before and .*'count'.: float32"),
        (WeakState(), "as to weak types: say the dtype"),
        (LooksAtItsState(), "init_state or targets of LooksAtItsState cannot be compiled"),
        (DrawsFromNumpy(), "init_state of DrawsFromNumpy: .*'mean'.* differs"),
        (InfiniteState(), "the state of InfiniteState.'mean'. is not finite"),
        (LaterNaN(), "the state of LaterNaN.'mean'. is not finite"),
        (ScaleOfRewards(), "the state of ScaleOfRewards.*where nothing is rewarded"),
        (IdleState(), "the state of IdleState has no effect"),
    ],
    ids=lambda each: type(each).__name__,
)
def test_a_broken_objective_is_found(objective, complaint):
    with pytest.raises((AssertionError, TypeError), match=complaint):
        check_objective(objective)


def test_an_objective_that_refuses_the_spaces_says_so():
    with pytest.raises(ValueError, match="must be vectors"):
        check_objective(A2C(), EnvSpec(Discrete(2), Box((2, 2))))


@dataclass(frozen=True)
class Numbers:
    """Tasks that are random numbers."""

    def sample(self, key):
        return Task(jax.random.uniform(key), jnp.int32(3))


class Mean:
    """Remembers the mean of the scores."""

    tasks = Numbers()

    def check(self, num_tasks):
        pass

    def init(self, key):
        return jnp.float32(0.0)

    def propose(self, key, state, num_tasks):
        return state, propose_new(jax.vmap(self.tasks.sample)(jax.random.split(key, num_tasks)))

    def observe(self, key, state, proposal, scores, finished):
        counts = finished & jnp.isfinite(scores)
        mean = jnp.sum(jnp.where(counts, scores, 0.0)) / jnp.maximum(jnp.sum(counts), 1)
        return mean, {"mean": mean}


@dataclass(frozen=True)
class WholeCurriculum(Mean):
    """Nothing is broken."""


@dataclass(frozen=True)
class GrowingState(Mean):
    """A state of another type."""

    def observe(self, key, state, proposal, scores, finished):
        return scores, {}


@dataclass(frozen=True)
class NoLife(Mean):
    """Lifetimes of 0."""

    def propose(self, key, state, num_tasks):
        state, proposal = super().propose(key, state, num_tasks)
        return state, proposal.replace(tasks=proposal.tasks.replace(lifetime=0 * proposal.tasks.lifetime))


@dataclass(frozen=True)
class HeedsTheUnfinished(Mean):
    """Means over all agents."""

    def observe(self, key, state, proposal, scores, finished):
        return super().observe(key, state, proposal, scores, jnp.ones_like(finished))


@dataclass(frozen=True)
class HeedsWhatIsNoNumber(Mean):
    """Means over what is not finite, too."""

    def observe(self, key, state, proposal, scores, finished):
        return jnp.mean(jnp.where(finished, scores, 0.0)), {}


@dataclass(frozen=True)
class TwoTasks(Mean):
    """Always two."""

    def propose(self, key, state, num_tasks):
        return super().propose(key, state, 2)


def test_a_whole_curriculum_passes():
    check_curriculum(WholeCurriculum())


@pytest.mark.parametrize(
    ("curriculum", "complaint"),
    [
        (GrowingState(), r"float32\[\] before and float32\[4\] after"),
        (NoLife(), "a lifetime of 0"),
        (HeedsTheUnfinished(), "mask scores by `finished`"),
        (HeedsWhatIsNoNumber(), "leave such out"),
        (TwoTasks(), "must be"),
        (DomainRandomization([1]), "has no hash"),
    ],
    ids=lambda each: type(each).__name__,
)
def test_a_broken_curriculum_is_found(curriculum, complaint):
    with pytest.raises((AssertionError, TypeError), match=complaint):
        check_curriculum(curriculum)


FAST = MetaGradient(learning_rate=Decay(0.05))


class Wrapped:
    """Meta-gradients with something changed."""

    def init(self, key, meta_params, num_tasks):
        return FAST.init(key, meta_params, num_tasks)

    def descend(self, state, lives, loss_fn, *, train_mask):
        return FAST.descend(state, lives, loss_fn, train_mask=train_mask)


@dataclass(frozen=True)
class Uphill(Wrapped):
    """The wrong sign."""

    def descend(self, state, lives, loss_fn, *, train_mask):
        def turned(meta_params, life):
            loss, rest = loss_fn(meta_params, life)
            return -loss, rest

        return FAST.descend(state, lives, turned, train_mask=train_mask)


@dataclass(frozen=True)
class BeginsElsewhere(Wrapped):
    """Not at the meta-parameters that it was given."""

    def init(self, key, meta_params, num_tasks):
        return FAST.init(key, jax.tree.map(lambda leaf: leaf + 1.0, meta_params), num_tasks)


@dataclass(frozen=True)
class Welcoming(Wrapped):
    """Begins where there is nothing to learn."""

    def init(self, key, meta_params, num_tasks):
        return GradientState(meta_params, ()) if meta_params == () else super().init(key, meta_params, num_tasks)


@dataclass(frozen=True)
class Plain(Wrapped):
    """A plain mean of gradients: one NaN life spoils it."""

    def descend(self, state, lives, loss_fn, *, train_mask):
        def total(meta_params):
            loss, rest = jax.vmap(partial(loss_fn, meta_params))(lives)
            return jnp.mean(loss), rest

        gradient, (lives, _) = jax.grad(total, has_aux=True)(state.meta_params)
        meta_params = jax.tree.map(lambda leaf, slope: leaf - 0.05 * slope, state.meta_params, gradient)
        return replace(state, meta_params=meta_params), lives, {}


@dataclass(frozen=True)
class HalfAGeneration:
    """One candidate of each pair."""

    replicas = 2

    def init(self, key, meta_params, num_tasks):
        return Evolution().init(key, meta_params, num_tasks)

    def ask(self, key, state, num_tasks):
        population, state = Evolution().ask(key, state, num_tasks)
        return jax.tree.map(lambda leaf: leaf[:num_tasks], population), state

    def tell(self, key, state, population, fitness, *, train_mask=None):
        return state, {}


@pytest.mark.parametrize(
    ("meta_optimizer", "complaint"),
    [
        (HalfAGeneration(), "gives 8 candidates for 8 tasks"),
        (Uphill(), "check the sign"),
        (BeginsElsewhere(), "Begin at those given to init"),
        (Welcoming(), "check_learnable"),
        (Plain(), "one life has no finite fitness|Nothing may move"),
    ],
    ids=lambda each: type(each).__name__,
)
def test_a_broken_meta_optimizer_is_found(meta_optimizer, complaint):
    with pytest.raises(AssertionError, match=complaint):
        check_meta_optimizer(meta_optimizer, num_steps=3)
