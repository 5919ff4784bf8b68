"""JAX's own switches: a run works with them set, or is refused at once in words."""

import dataclasses
import inspect
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import metadisco
from metadisco.core.jax_defaults import own_defaults
from metadisco.objectives.drift import LPODrift
from metadisco.runs import loop
from tests.support import switches as switched
from tests.support import two_states
from tests.support.toy import Toy, quiet

ROOT = Path(__file__).parents[2]
OTHERS = {  # one at a time in the slow tests, all at once in the fast ones
    "JAX_DEBUG_KEY_REUSE": "1",
    "JAX_DEFAULT_PRNG_IMPL": "rbg",
    "JAX_DEFAULT_MATMUL_PRECISION": "highest",
    "PYTHONIOENCODING": "ascii",
}


def call(module, arguments, **switches):
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "2", "PYTHONPATH": str(ROOT)} | switches
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=ROOT)


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    """What a run comes to with no switch set."""
    weights = switched.discover(tmp_path_factory.mktemp("usual")).meta_params["w"]
    return f"weights {weights.tolist()}\n"


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("switches", "what"),
    [
        ({"JAX_ENABLE_X64": "1"}, ""),
        pytest.param({"JAX_DEBUG_NANS": "1"}, "", marks=pytest.mark.slow),
        (OTHERS, "run"),
        *(pytest.param({name: value}, "run", marks=pytest.mark.slow) for name, value in OTHERS.items()),
    ],
    ids=lambda each: "+".join(each) if isinstance(each, dict) else each or "all",
)
def test_a_run_comes_to_the_same_under_a_switch(switches, what, usual, tmp_path):
    done = call("tests.support.switches", [str(tmp_path), *filter(None, [what])], **switches)
    assert done.returncode == 0, done.stderr
    assert done.stdout == usual


@pytest.mark.timeout(600)
@pytest.mark.slow
def test_the_search_for_nan_ends_in_the_line_that_makes_it(tmp_path):
    """By evolution, by meta-gradients and in a meta-test, in one process."""
    done = call("tests.support.switches", [str(tmp_path), "nan"], JAX_DEBUG_NANS="1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("return loss * jnp.sqrt(0.5 - progress.num_updates") == 3
    assert done.stdout.count("FloatingPointError: invalid value (nan) encountered in sqrt") == 3


@pytest.mark.parametrize(
    ("switches", "words"),
    [
        ({"JAX_DISABLE_JIT": "1"}, "JAX_DISABLE_JIT: without compiling"),
        ({"JAX_PLATFORMS": "cuda"}, "no device for JAX_PLATFORMS=cuda"),
        ({"JAX_PLATFORMS": "nonsense"}, "no device for JAX_PLATFORMS=nonsense"),
    ],
)
def test_what_jax_cannot_do_is_refused_in_words(switches, words, tmp_path):
    done = call("metadisco.cli", ["discover", "smoke", "--out", str(tmp_path / "run")], **switches)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_an_objective_can_be_stepped_through_without_compiling():
    inner = two_states.inner_loop(num_steps=2, num_workers=2)
    seen = []

    class Stepped(two_states.Linear):
        def loss(self, meta_params, targets, outputs, trajectory, progress):
            seen.append(float(trajectory.reward[0, 0]))  # a number, not a tracer
            return super().loss(meta_params, targets, outputs, trajectory, progress)

    life = inner.begin(jax.random.key(0), two_states.task(1))
    compiled, _ = jax.jit(inner.update)(inner.objective.init(None), life)
    with jax.disable_jit():
        stepped, _ = two_states.inner_loop(Stepped(), num_steps=2, num_workers=2).update(
            inner.objective.init(None), life
        )
    assert seen
    for one, other in zip(jax.tree.leaves(compiled.agent_params), jax.tree.leaves(stepped.agent_params), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_the_loop_runs_without_compiling(tmp_path):
    usual = loop.run(Toy(2), tmp_path / "usual", loop.RunOptions(0), console=quiet()).state.weights
    with jax.disable_jit():
        found = loop.run(Toy(2), tmp_path / "run", loop.RunOptions(0), console=quiet()).state.weights
    np.testing.assert_allclose(found, usual, rtol=1e-4, atol=1e-5)


def test_components_keep_32_bits_inside_a_program_of_64():
    with jax.enable_x64(True):
        meta_params = LPODrift(width=2).init(jax.random.key(0))
        assert {leaf.dtype for leaf in jax.tree.leaves(meta_params)} == {jnp.dtype("float32")}
        life = jax.eval_shape(two_states.inner_loop().begin, jax.random.key(0), two_states.task())
        assert life.num_updates.dtype == jnp.int32
        assert jnp.zeros(1).dtype == jnp.float64
    assert own_defaults(jnp.zeros)(1).dtype == jnp.float32


@pytest.mark.parametrize(
    "arguments",
    [["list", "objectives"], pytest.param(["inspect", "lpo-quick"], marks=pytest.mark.slow), ["evaluate", "nö"]],
)
def test_a_terminal_that_knows_few_signs_costs_no_more_than_the_sign(arguments):
    done = call("metadisco.cli", arguments, PYTHONIOENCODING="ascii")
    assert done.returncode == (2 if arguments[0] == "evaluate" else 0), done.stderr
    assert (done.stdout + done.stderr).isascii()
    assert "Traceback" not in done.stderr


def test_every_public_component_computes_under_its_own_defaults():
    """A component that does not would be twice as wide in a process of 64 bits."""
    public = {name: getattr(metadisco, name) for name in metadisco.__all__}
    components = {
        name: each for name, each in public.items() if isinstance(each, type) and dataclasses.is_dataclass(each)
    }
    assert len(components) > 30
    bare = [
        f"{name}.{method}"
        for name, component in components.items()
        for method, function in vars(component).items()
        if inspect.isfunction(function) and not method.startswith("_") and method != "replace"  # flax's
        if not hasattr(function, "__wrapped__")
    ]
    assert bare == []
