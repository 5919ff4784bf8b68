"""A preset on other environments than its own: what it searches for, trained where the user wants it to work."""

from dataclasses import replace

from metadisco.core import config
from metadisco.curricula.randomization import DomainRandomization
from metadisco.curricula.tasks import DrawsTasks, LifetimeDistribution, LogUniformLifetime, Tasks
from metadisco.envs.host import Hosted
from metadisco.evaluation import suites
from metadisco.evaluation.catalog import UNSCALED
from metadisco.evaluation.environments import EnvironmentConfig, with_objective
from metadisco.evaluation.suites import EnvSuite
from metadisco.meta_training.domain import Domain
from metadisco.meta_training.evolution_trainer import EvolutionTrainer
from metadisco.presets.base import Preset


def on_environments(preset: Preset, names: list[str]) -> Preset:
    """The preset with one domain for each environment, which share its tasks; it is tested on them, too.

    Each has its own agents and its own levels: those that `my_module:make_env` gives with the environment are drawn
    anew for every task. Lifetimes are drawn as by the preset, or from a quarter of the usual budget to all of it.

    Args:
        preset: by evolution over whole lives.
        names: of `metadisco.evaluation.environments`, or as `metadisco.evaluation.any_environment` takes them.

    Raises:
        config.ConfigError: for an unknown environment, one that is given twice or is stepped on the host, several of
            which one has no scale, or a preset of another kind.
        ValueError: where the objective cannot teach the agents of an environment.
    """
    trainer = preset.trainer
    if not isinstance(trainer, EvolutionTrainer):
        raise config.ConfigError(
            f"--environments is for presets by evolution over whole lives; {preset.name} has a "
            f"{type(trainer).__name__}: replace its environment by paths (metadisco list settings {preset.name})"
        )
    if len(set(names)) < len(names):
        raise config.ConfigError(f"--environments has one twice: {', '.join(names)}")
    if len(names) > trainer.num_tasks:
        raise config.ConfigError(f"{preset.name} has {trainer.num_tasks} tasks a meta-step, too few for {len(names)}")
    chosen = {name: _environment(name) for name in names}
    unscaled = [name for name, each in chosen.items() if each.upper_anchor == UNSCALED]
    if unscaled and len(names) > 1:
        raise config.ConfigError(
            f"{' and '.join(unscaled)}: no scale is known, so that returns there cannot be weighed against others; "
            f"measure one first: metadisco tune {unscaled[0]}"
        )
    objective, lifetimes = trainer.domains[0].inner.objective, _lifetimes(trainer.domains[0])
    share, rest = divmod(trainer.num_tasks, len(names))
    domains = tuple(
        Domain(
            inner=with_objective(objective, each.inner),
            curriculum=DomainRandomization(Tasks(each.levels, lifetimes or _around(each.lifetime))),
            num_tasks=share + (place < rest),
            name=name,
            random_return=each.random_return,
            reference_return=each.upper_return,
        )
        for place, (name, each) in enumerate(chosen.items())
    )
    described = f"{preset.description}; on {', '.join(names)}"
    return replace(
        preset, description=described, trainer=replace(trainer, domains=domains), suites=tuple(names), validate_every=0
    )


def _environment(name: str) -> EnvironmentConfig:
    suite = suites.suite(name)
    if not isinstance(suite, EnvSuite):
        raise config.ConfigError(f"{name} is not an environment with agents of its own; leave --environments out")
    found = suite.config
    if isinstance(found.inner.env, Hosted):
        raise config.ConfigError(f"{name} is stepped on the host: objectives are tested on it, not meta-trained")
    return found


def _lifetimes(domain: Domain) -> LifetimeDistribution | None:
    tasks = domain.curriculum.tasks if isinstance(domain.curriculum, DrawsTasks) else None
    return tasks.lifetimes if isinstance(tasks, Tasks) else None


def _around(lifetime: int) -> LifetimeDistribution:
    return LogUniformLifetime(max(1, lifetime // 4), lifetime)
