"""Presets of PPO with a part that is discovered: its drift (arXiv:2210.05639, arXiv:2402.05828), or its optimizer."""

from collections.abc import Callable
from dataclasses import replace

from metadisco.agents.learned_optimizer import ResidualOPEN
from metadisco.agents.networks import MLP, Separate, Table, Tanh
from metadisco.curricula.randomization import DomainRandomization
from metadisco.curricula.tasks import LogUniformLifetime, Tasks
from metadisco.envs.gridworld.levels import GridLevels
from metadisco.evaluation.environments import environment, with_objective
from metadisco.lives.life import InnerLoop
from metadisco.lives.tuned import DRIFT_TABLE_LEARNER, DRIFT_TABLE_PPO
from metadisco.meta_optimizers.evolution import Evolution
from metadisco.meta_optimizers.schedules import Decay
from metadisco.meta_optimizers.shaping import PairwiseRoot
from metadisco.meta_training.domain import Domain
from metadisco.meta_training.evolution_trainer import EvolutionTrainer, MetaTrainer
from metadisco.objectives.drift import LPODrift
from metadisco.objectives.mirror_learning import PPO, MirrorLearning
from metadisco.objectives.scheduled_mirror_learning import ScheduledMirrorLearning
from metadisco.objectives.with_optimizer import WithOptimizer
from metadisco.presets.base import Preset, catalogued

_QUICK = LogUniformLifetime(24, 96)


Learned = MirrorLearning | ScheduledMirrorLearning | WithOptimizer


def _small(name: str, objective: Learned, num_tasks: int) -> Domain:
    """An environment of low-dimensional observations, with networks and rollouts a quarter of the usual size."""
    usual = environment(name)
    torso = Separate(MLP((32, 32), Tanh()), MLP((32, 32), Tanh()))
    inner = replace(
        with_objective(objective, usual.inner), torso=torso, num_workers=8, num_steps=32, num_test_workers=16
    )
    return Domain(
        inner=inner,
        curriculum=DomainRandomization(Tasks(usual.levels, _QUICK)),
        num_tasks=num_tasks,
        name=name,
        random_return=usual.random_return,
        reference_return=usual.upper_return,
    )


def _grid(objective: Learned, num_tasks: int) -> Domain:
    """General grid worlds with tabular agents. The random policy gets 0.2 there, tuned A2C 1.8, the optimum 2.2."""
    levels = GridLevels()
    table = InnerLoop(levels.env, Table(), DRIFT_TABLE_PPO, DRIFT_TABLE_LEARNER, num_workers=32, num_test_workers=32)
    return Domain(
        inner=with_objective(objective, table),
        curriculum=DomainRandomization(Tasks(levels, _QUICK)),
        num_tasks=num_tasks,
        name="grid",
        reference_return=2.0,
    )


def quick(*, temporal: bool) -> EvolutionTrainer:
    """A drift by `_mixture`."""
    objective = MirrorLearning(LPODrift(width=16, temporal=temporal))
    return _mixture(objective, sigma=0.3, learning_rate=Decay(0.05, rate=0.99, floor=5e-3), num_steps=250)


def scheduled_ppo() -> Preset:
    """A schedule of PPO's coefficients for tables and networks."""
    return catalogued(
        "scheduled-ppo-quick",
        _mixture(ScheduledMirrorLearning(), sigma=0.1, learning_rate=Decay(0.05, rate=0.97), num_steps=100),
        num_seeds=16,
        validate_every=0,
    )


def open_quick() -> Preset:
    """An optimizer for PPO's networks, which begins at the tuned Adam of each environment (arXiv:2407.07082)."""
    objective = WithOptimizer(PPO(), ResidualOPEN(width=4, hidden=8))
    trainer = EvolutionTrainer(
        domains=(_small("CartPole-v1", objective, num_tasks=8), _small("Catch-bsuite", objective, num_tasks=8)),
        meta_optimizer=Evolution(sigma=Decay(0.1), learning_rate=Decay(0.03, rate=0.985), shaping=PairwiseRoot()),
        num_steps=60,
    )
    return catalogued("open-quick", trainer, num_seeds=4, validate_every=0)


def _mixture(objective: Learned, *, sigma: float, learning_rate: Decay, num_steps: int) -> EvolutionTrainer:
    """CartPole, Catch and grid worlds at once, with a network small enough for a few thousand lives."""
    return EvolutionTrainer(
        domains=(
            _small("CartPole-v1", objective, num_tasks=12),
            _small("Catch-bsuite", objective, num_tasks=12),
            _grid(objective, num_tasks=24),
        ),
        meta_optimizer=Evolution(sigma=Decay(sigma), learning_rate=learning_rate, shaping=PairwiseRoot()),
        num_steps=num_steps,
    )


def space_invaders(*, temporal: bool) -> EvolutionTrainer:
    """MinAtar SpaceInvaders with full lifetimes, as in arXiv:2402.05828; made for an accelerator."""
    usual = environment("SpaceInvaders-MinAtar")
    lifetimes = LogUniformLifetime(usual.lifetime // 4, usual.lifetime)
    return MetaTrainer(
        inner=with_objective(MirrorLearning(LPODrift(temporal=temporal)), usual.inner),
        curriculum=DomainRandomization(Tasks(usual.levels, lifetimes)),
        meta_optimizer=Evolution(sigma=Decay(0.05), learning_rate=Decay(0.01, rate=0.995, floor=1e-3)),
        num_tasks=32,
        num_steps=500,
    )


def drift(name: str, make: Callable[..., EvolutionTrainer], *, temporal: bool) -> Preset:
    """A learned drift, tested on environments that it was not trained on."""
    return catalogued(name, make(temporal=temporal), num_seeds=16, validate_every=0)


DRIFTS: dict[str, Callable[..., EvolutionTrainer]] = {"quick": quick, "spaceinvaders": space_invaders}
