"""A tiny discovery, meta-gradient run, meta-test and drift, for a process in which JAX is set to something else.

`python -m tests.support.switches FOLDER [run|nan]`; see test_jax_switches.
"""

import sys
import traceback
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import metadisco
from metadisco.commands import discovery
from metadisco.core.files import is_key
from metadisco.core.types import Task
from metadisco.curricula.randomization import DomainRandomization
from metadisco.curricula.tasks import FixedLifetime, Tasks
from metadisco.evaluation import evaluation
from metadisco.meta_training.domain import Domain
from metadisco.meta_training.gradient_trainer import GradientTrainer
from metadisco.meta_training.truncation import Unroll
from metadisco.runs import loop
from tests.commands.test_start import Pay, preset
from tests.support import two_states
from tests.support.rooted import Rooted
from tests.support.toy import quiet

TASKS = Tasks(Pay(), FixedLifetime(3))


def discover(folder, objective=two_states.Linear(), num_steps=2):
    return discovery.discover(preset(objective, num_steps), folder / "run", console=quiet()).discovered


def gradient_run(folder, objective=two_states.Linear()):
    domain = Domain(two_states.inner_loop(objective), DomainRandomization(TASKS), num_tasks=2)
    trainer = GradientTrainer((domain,), unroll=Unroll(2), num_steps=3)
    return loop.run(trainer, folder / "gradient", loop.RunOptions(0), console=quiet())


def meta_test(meta_params, objective=two_states.Linear()):
    inner = replace(two_states.inner_loop(objective), critic=None)
    levels = jnp.array([[0.2, 1.0], [1.0, 0.1]], jnp.float32)
    test_set = metadisco.TestSet(
        name="pay",
        env=inner.env,
        tasks=Task(levels, jnp.full(2, 2, jnp.int32)),
        lifetime=2,
        names=("a", "b"),
        random_return=np.zeros(2, np.float32),
        upper_return=np.ones(2, np.float32),
    )
    return evaluation.evaluate(inner, meta_params, test_set, num_points=1)


def narrow(tree) -> bool:
    """Whether nothing in a tree is wider than 32 bits."""
    return all(leaf.dtype.itemsize <= 4 for leaf in jax.tree.leaves(tree) if not is_key(leaf))


def main(folder: Path) -> None:
    """Everything once, in 32 bits, and a drift in the caller's own precision."""
    caller = jnp.asarray(1.0).dtype  # float64 in a process of 64 bits
    discovered = discover(folder)
    assert narrow(discovered.meta_params)
    assert narrow(gradient_run(folder).state)
    assert meta_test(discovered.meta_params).returns.dtype == np.float32
    drift = metadisco.load("lpo-quick").drift

    def surrogate(ratio):
        return jnp.mean(ratio * 2.0 - drift(ratio, jnp.asarray(2.0), 0.5))

    value, slope = jax.jit(jax.value_and_grad(surrogate))(jnp.linspace(0.5, 2.0, 5))
    assert (value.dtype, slope.dtype) == (caller, caller)
    assert np.isfinite(slope).all()
    assert jnp.asarray(1.0).dtype == caller
    print("weights", discovered.meta_params["w"].tolist())


if __name__ == "__main__":
    out, what = Path(sys.argv[1]), (sys.argv[2] if len(sys.argv) > 2 else "all")
    if what == "run":
        print("weights", discover(out).meta_params["w"].tolist())
    elif what == "nan":
        for each in (discover, gradient_run, lambda _, objective: meta_test(objective.init(None), objective)):
            try:
                each(out, Rooted())
            except FloatingPointError:
                print(traceback.format_exc())
    else:
        main(out)
