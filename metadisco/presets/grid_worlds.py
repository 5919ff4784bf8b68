"""Presets on grid worlds: LPG and TA-LPG for tabular agents, by evolution and by meta-gradients."""

from typing import Any

from metadisco.agents.learned_optimizer import ResidualOPEN
from metadisco.agents.networks import Table
from metadisco.agents.optimizers import SGD, RMSProp
from metadisco.core.config import replace_fields
from metadisco.curricula.plr import PrioritizedLevelReplay
from metadisco.curricula.randomization import DomainRandomization
from metadisco.curricula.self_evolving import SelfEvolvingCurriculum
from metadisco.curricula.tasks import LogUniformLifetime, TaskMixture, Tasks
from metadisco.envs.gridworld.levels import LABYRINTHS, EmbeddedLevels, GridLevels
from metadisco.lives.critic import Critic
from metadisco.lives.learner import Learner
from metadisco.lives.life import InnerLoop
from metadisco.lives.tuned import TABLE_A2C, TABLE_A2C_LEARNER, TABLE_PPO, TABLE_PPO_LEARNER
from metadisco.meta_optimizers.averaging import Averaged
from metadisco.meta_optimizers.evolution import Evolution
from metadisco.meta_optimizers.gradient import MetaGradient
from metadisco.meta_optimizers.online_evolution import NoiseReuseES, OnlineEvolution, PersistentES
from metadisco.meta_optimizers.schedules import Decay
from metadisco.meta_optimizers.shaping import PairwiseRoot
from metadisco.meta_training.antagonists import TUNED_A2C, Expert
from metadisco.meta_training.domain import Domain
from metadisco.meta_training.evolution_trainer import EvolutionTrainer, MetaTrainer
from metadisco.meta_training.gradient_trainer import GradientTrainer
from metadisco.meta_training.level_scores import (
    L1ValueLoss,
    Learnability,
    LevelScore,
    MaxMC,
    NormalizedScore,
    PositiveValueLoss,
    Regret,
    Uniform,
)
from metadisco.meta_training.online_trainer import OnlineEvolutionTrainer
from metadisco.meta_training.trainer import Trainer
from metadisco.objectives.base import Objective
from metadisco.objectives.exploring_a2c import ExploringA2C
from metadisco.objectives.lpg import LPG
from metadisco.objectives.scheduled_a2c import ALL_INPUTS, INPUTS, ScheduledA2C
from metadisco.objectives.scheduled_mirror_learning import ScheduledMirrorLearning
from metadisco.objectives.with_optimizer import WithOptimizer
from metadisco.presets.base import Preset, catalogued


def _grid_trainer(
    *,
    objective: Objective,
    # Larger than any rate that suits A2C: LPG scales pi_hat itself, and learns much faster from here.
    learner: Learner = Learner(policy=SGD(1000.0), prediction=SGD(4.0)),
    lifetimes: LogUniformLifetime,
    num_workers: int,
    num_tasks: int,
    num_steps: int,
    sigma: Decay,
    learning_rate: Decay,
) -> EvolutionTrainer:
    """Tabular agents on the general grid-world distribution, by antithetic task pairs."""
    levels = GridLevels()
    return MetaTrainer(
        inner=_life(levels, objective, learner, num_workers),
        curriculum=DomainRandomization(Tasks(levels, lifetimes)),
        meta_optimizer=Evolution(sigma=sigma, learning_rate=learning_rate, shaping=PairwiseRoot()),
        num_tasks=num_tasks,
        num_steps=num_steps,
    )


def _life(levels: GridLevels | EmbeddedLevels, objective: Objective, learner: Learner, num_workers: int) -> InnerLoop:
    """Of a tabular agent on such levels."""
    return InnerLoop(levels.env, Table(), objective, learner, num_workers=num_workers, num_test_workers=32)


# Of the tuned A2C for tables (`metadisco.lives.tuned`). Gradients are normalized, so their limit is for accidents only.
_SCHEDULED_A2C_LEARNER = Learner(RMSProp(0.4, max_grad_norm=100.0), RMSProp(0.05, max_grad_norm=100.0))


def _scheduled_a2c(*, lifetimes: LogUniformLifetime, num_steps: int, learning_rate: Decay) -> EvolutionTrainer:
    """A2C by a schedule, which begins at the tuned A2C."""
    return _grid_trainer(
        objective=ScheduledA2C(gamma=0.95, gae_lambda=0.98, entropy_weight=0.01, loss_scale=10.0),
        learner=_SCHEDULED_A2C_LEARNER,
        lifetimes=lifetimes,
        num_workers=32,
        num_tasks=128,
        num_steps=num_steps,
        sigma=Decay(0.1),
        learning_rate=learning_rate,
    )


def quickstart() -> Preset:
    """A2C and a bonus of counts by schedules, where rewards are near and where they are far, in ten minutes."""
    search = Evolution(sigma=Decay(0.1), learning_rate=Decay(0.03, rate=0.985), shaping=PairwiseRoot())
    trainer = EvolutionTrainer(_near_and_far(num_tasks=96), search, num_steps=120)
    # A second agent on each level would make the test as long as the search.
    return catalogued("quickstart", trainer, minutes=11.0, num_seeds=1)


def _near_and_far(*, num_tasks: int, inputs: tuple[str, ...] = INPUTS) -> tuple[Domain, ...]:
    """A2C that explores, on general grid worlds and, half as many tasks, in labyrinths; `inputs` of its schedules."""
    # At A2C with a bonus of counts, tuned for both kinds of levels (docs/results/tune_a2c_count.json).
    a2c = ScheduledA2C(gamma=0.98, gae_lambda=0.98, entropy_weight=0.01, inputs=inputs)
    objective = ExploringA2C(a2c, bonus=0.1, power=1.0)
    lifetimes = LogUniformLifetime(16, 256)

    def domain(name: str, levels: GridLevels | EmbeddedLevels, num_tasks: int, **settings: Any) -> Domain:
        inner = _life(levels, objective, _SCHEDULED_A2C_LEARNER, num_workers=32)
        curriculum = DomainRandomization(Tasks(levels, lifetimes))
        return Domain(inner, curriculum, num_tasks=num_tasks, name=name, **settings)

    return (
        domain("general", GridLevels(), num_tasks, reference_return=2.0),
        domain("labyrinths", LABYRINTHS, num_tasks // 2),
    )


def smoke() -> Preset:
    """The whole path, small."""
    levels = GridLevels(max_side=5, num_walls=3, max_objects=2, max_steps=(20, 40))
    trainer = _grid_trainer(
        objective=LPG(width=8, lifetime_features=True),
        lifetimes=LogUniformLifetime(4, 8),
        num_workers=8,
        num_tasks=16,
        num_steps=30,
        sigma=Decay(0.1),
        learning_rate=Decay(0.03),
    )
    curriculum = DomainRandomization(Tasks(levels, LogUniformLifetime(4, 8)))
    changes = {"inner.env": levels.env, "inner.num_test_workers": 16, "curriculum": curriculum}
    return catalogued(
        "smoke",
        replace_fields(trainer, changes),
        baselines=("a2c",),
        num_seeds=2,
        validate_every=0,
    )


def _published_trainer(*, lifetime_features: bool) -> EvolutionTrainer:
    return _grid_trainer(
        objective=LPG(width=16, lifetime_features=lifetime_features),
        lifetimes=LogUniformLifetime(10, 250),
        num_workers=32,
        num_tasks=64,
        num_steps=2500,
        sigma=Decay(0.1),
        learning_rate=Decay(0.03, rate=0.999, floor=1e-3),
    )


def _long_run(name: str, trainer: Trainer, *, validate_every: int = 25) -> Preset:
    return catalogued(name, trainer, num_seeds=1, validate_every=validate_every)


def scheduled_a2c_quick() -> Preset:
    """A schedule for A2C without a bonus."""
    return _long_run(
        "scheduled-a2c-quick",
        _scheduled_a2c(lifetimes=LogUniformLifetime(16, 256), num_steps=100, learning_rate=Decay(0.03, rate=0.985)),
    )


def scheduled_a2c() -> Preset:
    """The same for longer and on longer lives."""
    return _long_run(
        "scheduled-a2c",
        _scheduled_a2c(
            lifetimes=LogUniformLifetime(16, 1000),
            num_steps=600,
            learning_rate=Decay(0.03, rate=0.996),
        ),
    )


def exploring_a2c_long() -> Preset:
    """The quickstart for longer: twice the tasks, schedules that see how long episodes are, a mean of the search."""
    search = Evolution(
        sigma=Decay(0.1, rate=0.999), learning_rate=Decay(0.03, rate=0.993, floor=2e-3), shaping=PairwiseRoot()
    )
    domains = _near_and_far(num_tasks=192, inputs=ALL_INPUTS)
    return _long_run("exploring-a2c-long", EvolutionTrainer(domains, Averaged(search), num_steps=300))


def scheduled_a2c_nres() -> Preset:
    """The same by noise-reuse ES: told after every 50 updates of lives of up to 1000."""
    return _long_run(
        "scheduled-a2c-nres",
        OnlineEvolutionTrainer(
            domains=scheduled_a2c().trainer.domains,
            meta_optimizer=OnlineEvolution(NoiseReuseES(), sigma=Decay(0.1), learning_rate=Decay(0.01, rate=0.9995)),
            num_updates=50,
            num_steps=3600,  # about as many agent updates as `scheduled-a2c`
        ),
        validate_every=150,
    )


def scheduled_ppo_grid() -> Preset:
    """A schedule for PPO with tabular agents, from the tuned PPO."""
    return _long_run(
        "scheduled-ppo-grid",
        _grid_trainer(
            objective=ScheduledMirrorLearning(TABLE_PPO),
            learner=TABLE_PPO_LEARNER,
            lifetimes=LogUniformLifetime(16, 256),
            num_workers=32,
            num_tasks=64,
            num_steps=100,
            sigma=Decay(0.1),
            learning_rate=Decay(0.03, rate=0.985),
        ),
    )


def open_grid() -> Preset:
    """An optimizer for A2C's tables, from the tuned RMSProp (arXiv:2407.07082).

    It is asked for every entry of a table, so it is meta-trained on smaller grids than those that it is tested on.
    """
    levels, lifetimes = GridLevels(max_side=6, num_walls=6, max_objects=3), LogUniformLifetime(16, 256)
    trainer = _grid_trainer(
        objective=WithOptimizer(TABLE_A2C, ResidualOPEN()),
        learner=TABLE_A2C_LEARNER,
        lifetimes=lifetimes,
        num_workers=32,
        num_tasks=64,
        num_steps=100,
        sigma=Decay(0.1),
        learning_rate=Decay(0.03, rate=0.985),
    )
    changes = {"inner.env": levels.env, "curriculum": DomainRandomization(Tasks(levels, lifetimes))}
    return _long_run("open-grid", replace_fields(trainer, changes), validate_every=0)


def ta_lpg_quick() -> Preset:
    """TA-LPG in a quarter of an hour on two cores."""
    return catalogued(
        "ta-lpg-quick",
        _grid_trainer(
            objective=LPG(width=16, lifetime_features=True),
            lifetimes=LogUniformLifetime(16, 96),
            num_workers=32,
            num_tasks=128,
            num_steps=850,
            sigma=Decay(0.1, rate=0.9995),
            learning_rate=Decay(0.03, rate=0.997, floor=1e-3),
        ),
        minutes=11.0,
    )


def ta_lpg_grid() -> Preset:
    """TA-LPG on the published horizons."""
    return _long_run(
        "ta-lpg-grid",
        _published_trainer(lifetime_features=True),
    )


def lpg_grid() -> Preset:
    """LPG, the same but for the lifetime features."""
    return _long_run(
        "lpg-grid",
        _published_trainer(lifetime_features=False),
    )


def lpg_grid_pes() -> Preset:
    """LPG by persistent ES: the tasks and agents of `lpg-grid`, told after every 25 updates."""
    return _long_run(
        "lpg-grid-pes",
        OnlineEvolutionTrainer(
            domains=_published_trainer(lifetime_features=False).domains,
            meta_optimizer=OnlineEvolution(
                PersistentES(), sigma=Decay(0.1), learning_rate=Decay(0.01, rate=0.9997, floor=1e-3)
            ),
            num_updates=25,
            num_steps=9000,  # about as many agent updates as `lpg-grid`
        ),
        validate_every=90,
    )


def groove_grid_es() -> Preset:
    """TA-LPG on levels that are replayed by algorithmic regret (arXiv:2310.02782), by evolution."""
    replay = PrioritizedLevelReplay(Tasks(GridLevels(), LogUniformLifetime(10, 250)))
    return _long_run(
        "groove-grid-es",
        replace_fields(_published_trainer(lifetime_features=True), {"curriculum": replay, "score": Regret()}),
    )


def self_evolving_quick() -> Preset:
    """The schedule for A2C on kinds of tasks that a bandit chooses by their regret (arXiv:2505.14970)."""
    small = EmbeddedLevels(GridLevels(max_side=6, num_walls=5), GridLevels().env)
    lifetimes = LogUniformLifetime(16, 64), LogUniformLifetime(65, 256)
    arms = TaskMixture(tuple(Tasks(levels, each) for levels in (small, GridLevels(min_side=7)) for each in lifetimes))
    # The objective begins at the tuned A2C, so its regret is a few hundredths of the scale of a level.
    curriculum = SelfEvolvingCurriculum(arms, temperature=0.05)
    changes = {"curriculum": curriculum, "score": NormalizedScore(Regret(TUNED_A2C))}
    return _long_run("self-evolving-quick", replace_fields(scheduled_a2c_quick().trainer, changes))


def _gradient_trainer() -> GradientTrainer:
    """LPG by meta-gradients as published, but for the sizes, and for larger steps that shrink."""
    levels = GridLevels()
    inner = InnerLoop(
        env=levels.env,
        torso=Table(),
        objective=LPG(width=16),
        learner=Learner(policy=SGD(160.0), prediction=SGD(4.0)),
        num_workers=32,
        num_test_workers=32,
        critic=Critic(),
    )
    curriculum = DomainRandomization(Tasks(levels, LogUniformLifetime(10, 250)))
    return GradientTrainer(
        domains=(Domain(inner, curriculum, num_tasks=64),),
        # Ten times the published rate learns in hundreds of meta-steps instead of thousands, and then has to calm down.
        meta_optimizer=MetaGradient(learning_rate=Decay(1e-3, rate=0.998, floor=1e-4)),
        num_steps=5000,
    )


def lpg_grid_gradient() -> Preset:
    """LPG by meta-gradients on levels that are drawn anew."""
    return _long_run(
        "lpg-grid-gradient",
        _gradient_trainer(),
        validate_every=100,
    )


def replay_by(name: str, score: LevelScore) -> Preset:
    """LPG by meta-gradients on levels that are replayed by a score."""
    replay = PrioritizedLevelReplay(Tasks(GridLevels(), LogUniformLifetime(10, 250)))
    return _long_run(
        name,
        replace_fields(_gradient_trainer(), {"curriculum": replay, "score": score}),
        validate_every=100,
    )


SCORES: dict[str, LevelScore] = {
    "groove-grid": Regret(),
    "plr-uniform": Uniform(),
    "plr-l1": L1ValueLoss(),
    "plr-pvl": PositiveValueLoss(),
    "plr-maxmc": MaxMC(),
    "plr-learnability": Learnability(),
    "plr-optimal-regret": Regret(Expert()),
}
"""Presets that differ in how levels are scored: name -> score."""
