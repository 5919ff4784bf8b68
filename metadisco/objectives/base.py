"""What an objective is: the rule that turns experience into a loss.

Hand-written algorithms are objectives without meta-parameters (`init` returns `()`), so baselines, antagonists and
discovered objectives run through the same code.
"""

from typing import Any, Protocol, runtime_checkable

import jax
from flax import struct

from metadisco.agents.networks import Heads
from metadisco.core.types import Key, MetaParams, Metrics, Outputs, Progress, Trajectory
from metadisco.envs.base import EnvSpec

Targets = Any  # pytree of arrays [T, B, ...], constant while the loss is differentiated


@struct.dataclass
class Predictions:
    """An agent's outputs along a trajectory, by the parameters that acted."""

    now: Outputs  # [T, B, width] by head, at `obs`
    next: Outputs  # [T, B, width] by head, at `next_obs`


class Objective(Protocol):
    """A learning rule."""

    def heads(self, spec: EnvSpec) -> Heads:
        """Outputs that the agent must have. Raises ValueError where the objective does not fit the spaces."""

    def init(self, key: Key) -> MetaParams:
        """Random meta-parameters; () where there are none."""

    def targets(
        self, meta_params: MetaParams, predictions: Predictions, trajectory: Trajectory, progress: Progress
    ) -> Targets:
        """Whatever the loss needs that does not depend on the agent's present parameters. Computed once per rollout."""

    def loss(
        self, meta_params: MetaParams, targets: Targets, outputs: Outputs, trajectory: Trajectory, progress: Progress
    ) -> tuple[jax.Array, Metrics]:
        """A scalar to descend, differentiated with respect to the agent's parameters through `outputs`, and metrics."""


@runtime_checkable
class Regularized(Protocol):
    """An objective that says how far its targets have gone, for an outer loss that holds them back. Optional."""

    def regularizers(self, targets: Targets, outputs: Outputs) -> dict[str, jax.Array]:
        """Any of `prediction_entropy` H(y), `squared_pi_hat` and `squared_y_hat`, means over [T, B]: [] float32.

        Args:
            targets: of one update.
            outputs: [T, B, width] by head, of the agent after that update, on the same observations.
        """


@runtime_checkable
class NamedInputs(Protocol):
    """An objective that is learned, and whose inputs have names. Optional."""

    @property
    def features(self) -> tuple[str, ...]:
        """Names of its inputs, in order."""
