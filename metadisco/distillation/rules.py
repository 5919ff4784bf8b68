"""What there is to distill in each kind of objective, and the component that its formulas make.

A drift is one function of r, l, A and n/N, split by the sign of A as DPO is; a schedule one function for each of its
outputs, before what keeps a step positive or a discount below 1; LPG and A2C one function for pi_hat.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from metadisco.checkpoints.checkpoint import Discovered
from metadisco.core import config, formulas
from metadisco.core.devices import QUICK_COMPILATION
from metadisco.core.formulas import Expression
from metadisco.core.types import MetaParams
from metadisco.distillation import sampling
from metadisco.distillation.fronts import Function
from metadisco.distillation.sampling import Samples, Watch
from metadisco.lives.life import InnerLoop
from metadisco.objectives import formula_drift, formula_policy_gradient
from metadisco.objectives.actor_critic import A2C
from metadisco.objectives.base import Objective
from metadisco.objectives.drift import Drift
from metadisco.objectives.exploring_a2c import ExploringA2C
from metadisco.objectives.formula_drift import BRANCHES, FormulaDrift
from metadisco.objectives.formula_policy_gradient import FormulaPolicyGradient
from metadisco.objectives.lpg import LPG
from metadisco.objectives.mirror_learning import MirrorLearning
from metadisco.objectives.schedule import Rule
from metadisco.objectives.scheduled_a2c import ScheduledA2C
from metadisco.objectives.scheduled_mirror_learning import ScheduledMirrorLearning

LARGEST_ADVANTAGE, LARGEST_LOG_RATIO = 3.0, 1.0  # of samples of a drift
SAME = 1e-6  # a drift that changes by less over a life does not depend on n/N
_PI_HAT = "pi_hat"


class Distillable(Protocol):
    """One kind of objective."""

    @property
    def watch(self) -> Watch:
        """What is written down in lives."""

    def prepare(self, inner: InnerLoop) -> InnerLoop:
        """The inner loop with what `watch` needs."""

    def functions(self, samples: Samples) -> list[Function]:
        """What is to be put as formulas."""

    def component(self, found: Mapping[str, Expression]) -> tuple[Objective, MetaParams]:
        """The objective that formulas by name make, and their constants."""


def of(discovered: Discovered) -> Distillable:
    """How an objective is distilled. Raises ConfigError for a kind that is not."""
    objective, meta_params = discovered.objective, discovered.meta_params
    if isinstance(objective, MirrorLearning):
        return DriftRule(objective, meta_params)
    if isinstance(objective, ScheduledA2C | ScheduledMirrorLearning | ExploringA2C):
        return ScheduleRule(objective, meta_params)
    if isinstance(objective, LPG | A2C):
        return PolicyGradientRule(objective)
    raise config.ConfigError(
        f"a {type(objective).__name__} cannot be distilled: there are formulas for drifts (MirrorLearning), schedules "
        "(ScheduledA2C, ExploringA2C, ScheduledMirrorLearning), LPG and A2C"
    )


@dataclass(frozen=True, eq=False)
class DriftRule:
    """A drift as one formula where A >= 0, and one where A < 0."""

    objective: MirrorLearning
    meta_params: MetaParams
    watch = staticmethod(sampling.watch_ratios)

    def prepare(self, inner: InnerLoop) -> InnerLoop:
        """Nothing is needed."""
        return inner

    def functions(self, samples: Samples) -> list[Function]:
        """D by the sign of A, where agents were."""
        samples = usual(samples)
        l, A, t = (samples.columns[name] for name in ("l", "A", "t"))
        drift, threshold = self.objective.drift, FormulaDrift.threshold
        ends = (penalties(drift, self.meta_params, l, A, np.full_like(t, end)) for end in (0.0, 1.0))
        columns = {"d": "r - 1", "Ad": "A * (r - 1)", "Al": "A * l", "log_r": "l", "adv": "A"}
        if np.max(np.abs(np.subtract(*ends))) > SAME:
            columns["time"] = "t"

        def respond(expression: Expression, told: Mapping[str, Any], constants: Any, xp: Any) -> Any:
            return formula_drift.anchored(expression, told, constants, threshold, xp=xp)

        values = penalties(drift, self.meta_params, l, A, t)
        found = []
        for name, of_branch, sign in zip(BRANCHES, (A >= 0.0, A < 0.0), (1, -1)):
            inputs = formula_drift.inputs(l, A, t, xp=np)
            found.append(
                Function(
                    name,
                    {name: each[of_branch] for name, each in inputs.items()},
                    values[of_branch],
                    samples.held_out[of_branch],
                    respond,
                    columns,
                    signs={"A": sign, "r": 1, "t": 1, "adv": sign, "time": 1},
                    active=values[of_branch] > 0.0,
                )
            )
        return found

    def component(self, found: Mapping[str, Expression]) -> tuple[Objective, MetaParams]:
        """Mirror learning with the formulas for its drift."""
        better, worse = (formulas.text_of(found[name]) for name in BRANCHES)
        drift = FormulaDrift(better, worse)
        return replace(self.objective, drift=drift), drift.written


def usual(samples: Samples) -> Samples:
    """Those of a drift with an advantage and a log-ratio that are not far out.

    Few are, and their drifts are so large that a formula would be fitted to them alone.
    """
    columns = samples.columns
    kept = (np.abs(columns["A"]) <= LARGEST_ADVANTAGE) & (np.abs(columns["l"]) <= LARGEST_LOG_RATIO)
    return Samples({name: each[kept] for name, each in columns.items()}, samples.held_out[kept])


def penalties(drift: Drift, meta_params: MetaParams, l: np.ndarray, A: np.ndarray, t: np.ndarray) -> np.ndarray:
    """D at given log-ratios, advantages and fractions. [S] float32."""
    return np.asarray(_values_and_slopes(drift, meta_params, l, A, t)[0])


def slopes(drift: Drift, meta_params: MetaParams, l: np.ndarray, A: np.ndarray, t: np.ndarray) -> np.ndarray:
    """dD/dl, which is what an agent feels of it. [S] float32."""
    return np.asarray(_values_and_slopes(drift, meta_params, l, A, t)[1])


@partial(jax.jit, static_argnums=0, compiler_options=QUICK_COMPILATION)
def _values_and_slopes(
    drift: Drift, meta_params: MetaParams, l: jax.Array, A: jax.Array, t: jax.Array
) -> tuple[jax.Array, jax.Array]:
    values, pull_back = jax.vjp(lambda l: drift.penalty(meta_params, l, A, t), l)
    return values, pull_back(jnp.ones_like(values))[0]


@dataclass(frozen=True, eq=False)
class ScheduleRule:
    """A schedule as a formula for each of its outputs."""

    objective: ScheduledA2C | ScheduledMirrorLearning | ExploringA2C
    meta_params: MetaParams
    watch = staticmethod(sampling.watch_schedule)

    def prepare(self, inner: InnerLoop) -> InnerLoop:
        """Nothing is needed."""
        return inner

    @property
    def parts(self) -> dict[str, tuple[Rule, MetaParams]]:
        """The nets of the objective with their meta-parameters, by what they are called in the meta-parameters."""
        objective, meta_params = self.objective, self.meta_params
        if isinstance(objective, ExploringA2C):
            return {"a2c": (objective.a2c.rule, meta_params["a2c"]), "bonus": (objective.rule, meta_params["bonus"])}
        own = meta_params["schedule"] if isinstance(objective, ScheduledMirrorLearning) else meta_params
        return {"schedule": (objective.rule, own)}

    def functions(self, samples: Samples) -> list[Function]:
        """Every output, where agents were."""
        told = samples.columns["told"]
        found = []
        for rule, meta_params in self.parts.values():
            inputs = {name: told[:, place] for place, name in enumerate(rule.inputs)}
            own = jnp.asarray(told[:, : len(rule.inputs)])
            said = jax.vmap(lambda row, rule=rule, own=meta_params: rule.say(own, row))(own)
            columns = {f"x{place}": name for place, name in enumerate(inputs) if np.var(inputs[name]) > 0.0}
            for name in rule.outputs:
                values = np.broadcast_to(np.asarray(said[name]), samples.held_out.shape)
                found.append(Function(name, inputs, values, samples.held_out, as_it_is, columns))
        return found

    def component(self, found: Mapping[str, Expression]) -> tuple[Objective, MetaParams]:
        """The objective with formulas in place of its nets."""
        own = {part: {name: found[name] for name in rule.outputs} for part, (rule, _) in self.parts.items()}
        texts = {part: tuple(map(formulas.text_of, each.values())) for part, each in own.items()}
        constants = {part: formulas.written(each) for part, each in own.items()}
        objective = self.objective
        if isinstance(objective, ExploringA2C):
            a2c = replace(objective.a2c, formulas=texts["a2c"])
            return replace(objective, a2c=a2c, formulas=texts["bonus"]), constants
        changed = replace(objective, formulas=texts["schedule"])
        if isinstance(objective, ScheduledMirrorLearning):
            return changed, {"schedule": constants["schedule"], "drift": self.meta_params["drift"]}
        return changed, constants["schedule"]


@dataclass(frozen=True, eq=False)
class PolicyGradientRule:
    """What the policy's log-probability is multiplied by, as a formula of statistics of the step."""

    objective: LPG | A2C
    watch = staticmethod(sampling.watch_policy_gradient)

    def prepare(self, inner: InnerLoop) -> InnerLoop:
        """With a critic, where agents have no values of their own."""
        return sampling.with_values(inner)

    def functions(self, samples: Samples) -> list[Function]:
        """pi_hat, or the advantage."""
        inputs = {name: samples.columns[name] for name in formula_policy_gradient.INPUTS}
        columns = {f"x{place}": name for place, name in enumerate(inputs) if np.var(inputs[name]) > 0.0}
        signs = {"finished": 1, "prob": 1, "t": 1}
        push = samples.columns["push"]
        return [Function(_PI_HAT, inputs, push, samples.held_out, as_it_is, columns, signs)]

    def component(self, found: Mapping[str, Expression]) -> tuple[Objective, MetaParams]:
        """A policy gradient with the formula, and the settings of A2C where it was A2C."""
        shared = ("gamma", "gae_lambda", "value_weight", "entropy_weight")
        settings = {name: getattr(self.objective, name) for name in shared if isinstance(self.objective, A2C)}
        objective = FormulaPolicyGradient(formulas.text_of(found[_PI_HAT]), **settings)
        return objective, objective.written


def as_it_is(expression: Expression, told: Mapping[str, Any], constants: Any, xp: Any) -> Any:
    """The value of a formula, as what is made of it."""
    return formulas.evaluate(expression, told, constants, xp=xp)
