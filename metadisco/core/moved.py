"""Names that last: classes and fields that files call by the names of an earlier release.

A checkpoint or a run names its components as `package.module:Class`. Whoever moves a module, renames a class, changes
its fields or gives it another one adds a line here, so that everything that was ever written is still read. Files are
never edited; what is read from them is brought up to date by `current` before anything else looks at it.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

Data = Any  # what `json` reads and writes

MODULES: Mapping[str, str] = MappingProxyType(
    {
        "metadisco.antagonists": "metadisco.meta_training.antagonists",
        "metadisco.arena": "metadisco.meta_training.domain",
        "metadisco.baselines": "metadisco.lives.tuned",
        "metadisco.battery": "metadisco.evaluation.test_sets",
        "metadisco.card": "metadisco.checkpoints.card",
        "metadisco.chart_style": "metadisco.reports.chart_style",
        "metadisco.checkpoint": "metadisco.checkpoints.checkpoint",
        "metadisco.chunks": "metadisco.runs.compiled_steps",
        "metadisco.comparison": "metadisco.evaluation.meta_test",
        "metadisco.comparison_folder": "metadisco.reports.comparison",
        "metadisco.config": "metadisco.core.config",
        "metadisco.contestants": "metadisco.evaluation.agents_under_test",
        "metadisco.critic": "metadisco.lives.critic",
        "metadisco.curricula.handover": "metadisco.curricula.level_files",
        "metadisco.design": "metadisco.envs.level_design",
        "metadisco.differences": "metadisco.core.config",
        "metadisco.discovery": "metadisco.commands.discovery",
        "metadisco.distributed": "metadisco.core.processes",
        "metadisco.drift_plots": "metadisco.reports.drift_plots",
        "metadisco.drift_presets": "metadisco.presets.drifts",
        "metadisco.envs.gridworld": "metadisco.envs.gridworld.dynamics",
        "metadisco.envs.gridworld_design": "metadisco.envs.gridworld.design",
        "metadisco.envs.gridworld_features": "metadisco.envs.gridworld.features",
        "metadisco.envs.gridworld_levels": "metadisco.envs.gridworld.levels",
        "metadisco.envs.gridworld_mutation": "metadisco.envs.gridworld.mutation",
        "metadisco.envs.gridworld_oracle": "metadisco.envs.gridworld.oracle",
        "metadisco.envs.hand_designed": "metadisco.envs.gridworld.hand_designed",
        "metadisco.envs.mazes": "metadisco.envs.gridworld.mazes",
        "metadisco.envs.rendering": "metadisco.envs.gridworld.rendering",
        "metadisco.evaluation": "metadisco.evaluation.evaluation",
        "metadisco.files": "metadisco.core.files",
        "metadisco.gradient_trainer": "metadisco.meta_training.gradient_trainer",
        "metadisco.host_life": "metadisco.lives.host",
        "metadisco.learner": "metadisco.lives.learner",
        "metadisco.life": "metadisco.lives.life",
        "metadisco.listing": "metadisco.commands.listing",
        "metadisco.loop": "metadisco.runs.loop",
        "metadisco.lowrank": "metadisco.core.lowrank",
        "metadisco.memory": "metadisco.meta_training.memory_estimate",
        "metadisco.meta.base": "metadisco.meta_optimizers.base",
        "metadisco.meta.evolution": "metadisco.meta_optimizers.evolution",
        "metadisco.meta.gradient": "metadisco.meta_optimizers.gradient",
        "metadisco.meta.losses": "metadisco.meta_training.outer_losses",
        "metadisco.meta.lowrank_evolution": "metadisco.meta_optimizers.lowrank_evolution",
        "metadisco.meta.schedules": "metadisco.meta_optimizers.schedules",
        "metadisco.meta.shaping": "metadisco.meta_optimizers.shaping",
        "metadisco.mixed_trainer": "metadisco.meta_training.evolution_trainer",
        "metadisco.normalization": "metadisco.lives.normalization",
        "metadisco.plots": "metadisco.reports.plots",
        "metadisco.population": "metadisco.core.sharding",
        "metadisco.presets": "metadisco.presets.registry",
        "metadisco.programs": "metadisco.core.devices",
        "metadisco.progress": "metadisco.runs.progress",
        "metadisco.provenance": "metadisco.core.provenance",
        "metadisco.report.drifts": "metadisco.reports.drift_section",
        "metadisco.report.exhibits": "metadisco.reports.sections",
        "metadisco.results": "metadisco.evaluation.results",
        "metadisco.returns": "metadisco.core.returns",
        "metadisco.rollcall": "metadisco.core.rendezvous",
        "metadisco.run_folder": "metadisco.runs.run_folder",
        "metadisco.scores": "metadisco.meta_training.level_scores",
        "metadisco.seeds": "metadisco.meta_training.batched_seeds",
        "metadisco.settings": "metadisco.evaluation.environments",
        "metadisco.signals": "metadisco.runs.signals",
        "metadisco.stats": "metadisco.evaluation.stats",
        "metadisco.suite_lookup": "metadisco.evaluation.suites",
        "metadisco.suites": "metadisco.evaluation.suites",
        "metadisco.sweep": "metadisco.commands.sweep",
        "metadisco.sweep_table": "metadisco.commands.sweep_table",
        "metadisco.tasks": "metadisco.curricula.tasks",
        "metadisco.trackers": "metadisco.runs.trackers",
        "metadisco.train_state": "metadisco.runs.train_state",
        "metadisco.trees": "metadisco.core.trees",
        "metadisco.types": "metadisco.core.types",
        "metadisco.unroll": "metadisco.meta_training.truncation",
    }
)
"""Module of an earlier release to the present one."""

CLASSES: Mapping[str, str] = MappingProxyType(
    {
        "metadisco.arena:Arena": "metadisco.meta_training.domain:Domain",
        "metadisco.battery:Battery": "metadisco.evaluation.test_sets:TestSet",
        "metadisco.settings:Setting": "metadisco.evaluation.environments:EnvironmentConfig",
        "metadisco.mixed_trainer:MixedTrainer": "metadisco.meta_training.evolution_trainer:EvolutionTrainer",
        "metadisco.trainer:MetaTrainer": "metadisco.meta_training.evolution_trainer:EvolutionTrainer",
        "metadisco.learner:Adam": "metadisco.agents.optimizers:Adam",
        "metadisco.learner:SGD": "metadisco.agents.optimizers:SGD",
    }
)
"""`old.module:Class` to `module:Class` where the class has another name or did not go with its module."""


def _with_one_domain(fields: dict[str, Data]) -> dict[str, Data]:
    """A trainer whose domain was spread over its own fields."""
    parts = ("inner", "curriculum", "num_tasks", "score", "slots")
    domain = {"num_tasks": 512} | {name: fields.pop(name) for name in parts if name in fields}
    scale = {"name": "domain", "random_return": 0.0, "reference_return": 1.0}
    return {"domains": [{"class": "metadisco.meta_training.domain:Domain", **domain, **scale}], **fields}


def _with_domains(fields: dict[str, Data]) -> dict[str, Data]:
    """A trainer whose domains were called arenas."""
    return {"domains": fields.pop("arenas"), **fields}


FIELDS: Mapping[str, Callable[[dict[str, Data]], dict[str, Data]]] = MappingProxyType(
    {
        "metadisco.trainer:MetaTrainer": _with_one_domain,
        "metadisco.mixed_trainer:MixedTrainer": _with_domains,
        "metadisco.gradient_trainer:GradientTrainer": _with_one_domain,
    }
)
"""Name of an earlier release to a function that rewrites the fields of such a component, "class" among them."""


ADDED: Mapping[str, Mapping[str, Data]] = MappingProxyType(
    {
        "metadisco.objectives.lpg:LPG": {"scale_rewards": False, "center_pi_hat": False},
        "metadisco.envs.gridworld.levels:GridLevels": {"min_distance": 0},
        "metadisco.objectives.scheduled_a2c:ScheduledA2C": {
            "inputs": [
                *("fraction_of_lifetime", "log_lifetime", "mean_reward", "reward_trend", "best_mean_reward"),
                *("reward_density", "reward_seen", "entropy", "value_error"),
            ]
        },
    }
)
"""Present name of a class to the fields that it has got since, with what a file without them did."""


def current_name(name: str) -> str:
    """The present name of a class that a file calls `package.module:Class`; unknown names are returned as they are."""
    module, colon, attribute = name.partition(":")
    return CLASSES.get(name, f"{MODULES.get(module, module)}{colon}{attribute}")


def current(data: Data) -> Data:
    """Bring settings that were read from a file up to date: class names and fields, however deep.

    Args:
        data: What `config.to_data` of this or an earlier release wrote. It is not changed.

    Returns:
        The same settings in present names.
    """
    if isinstance(data, Mapping):
        fields = {name: current(value) for name, value in data.items()}
        name = fields.get("class")
        if not isinstance(name, str):
            return fields
        name, fields = current_name(name), FIELDS.get(name, dict)(fields)
        return {**ADDED.get(name, {}), **fields, "class": name}
    if isinstance(data, list):
        return [current(item) for item in data]
    return data
