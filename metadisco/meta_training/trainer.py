"""Protocol of trainers: all parts of a meta-training run, and its configuration."""

from typing import Any, Protocol, runtime_checkable

from metadisco.core.types import Key, MetaParams, Metrics
from metadisco.meta_training.domain import Domain

TrainState = Any  # pytree with a field `step: [] int32`, meta-steps done, and `curricula`, one for each domain


@runtime_checkable
class Trainer(Protocol):
    """A frozen dataclass with the initial state and the meta-step of a run.

    Its state has `step`, [] int32, and `curricula`, the states of its domains' curricula in their order.
    """

    @property
    def domains(self) -> tuple[Domain, ...]:
        """Environments with their agents."""

    @property
    def num_steps(self) -> int:
        """Meta-steps of the whole run."""

    @property
    def replicas(self) -> int:
        """R, lives for each task."""

    @property
    def lives_end_with_the_meta_step(self) -> bool:
        """Whether lives last for one meta-step, so that several seeds can be trained as one population."""

    def init(self, key: Key, meta_params: MetaParams | None = None) -> TrainState:
        """Initial state, at random meta-parameters or at those given."""

    def step(self, key: Key, state: TrainState) -> tuple[TrainState, Metrics]:
        """Next state, with `step` incremented, and scalar metrics."""

    def meta_params(self, state: TrainState) -> MetaParams:
        """The objective's present meta-parameters."""

    def num_slots(self, domain: Domain) -> int:
        """Lives of a domain that run side by side on one device."""

    def memory(self, domain: Domain) -> int:
        """Bytes that a meta-step needs in a domain, over all devices; an estimate, good to about a factor of two."""
