"""Contract checks that any component can be run through, your own included (docs/testing.md)."""

from metadisco.testing.curricula import check_curriculum
from metadisco.testing.environments import check_environment
from metadisco.testing.meta_optimizers import check_meta_optimizer
from metadisco.testing.objectives import check_objective

__all__ = ["check_curriculum", "check_environment", "check_meta_optimizer", "check_objective"]
