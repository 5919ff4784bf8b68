"""The machine that every test runs on: two CPU devices, no display, and compilations kept between runs.

Processes that a test starts (the command line) inherit the platform, the compilation cache and the plotting backend.
"""

import gc
import os
from pathlib import Path

import pytest

# One folder per xdist worker: JAX writes its cache without a lock, so two workers must not share one.
_CACHE = Path(__file__).parents[1] / ".cache" / "jax" / os.environ.get("PYTEST_XDIST_WORKER", "main")

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(_CACHE)  # a worker begins with that of the process that started it
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
# Most of the time of tiny programs is compiling them. The slow tests (`make test-slow`) compile as users do.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# Two thirds of the time of compiling for a CPU are those of the emitters of fused loops, and programs as small as these
# gain nothing by them; nor by being cut into parts for several cores, which costs a tenth. A worker begins with the
# environment of the process that started it.
_CHEAPER = (
    "--xla_backend_extra_options=xla_cpu_disable_new_fusion_emitters",
    "--xla_cpu_parallel_codegen_split_count=1",
)
if os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "1":
    _flags = os.environ.get("XLA_FLAGS", "").split()
    os.environ["XLA_FLAGS"] = " ".join([*_flags, *(flag for flag in _CHEAPER if flag not in _flags)])
os.environ["MPLBACKEND"] = "Agg"

import jax  # noqa: E402 - it reads the environment when it is imported

from metadisco.core.devices import forget_if_many  # noqa: E402

# Said again to JAX itself, in case a pytest plugin has imported it before.
jax.config.update("jax_platforms", os.environ["JAX_PLATFORMS"])
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
jax.config.update(
    "jax_persistent_cache_min_compile_time_secs", float(os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"])
)
jax.config.update("jax_disable_most_optimizations", os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "1")
jax.config.update("jax_num_cpu_devices", 2)


@pytest.fixture(autouse=True, scope="module")
def _forget_programs():
    """Drop the compiled programs of earlier modules before there are too many of them."""
    yield
    forget_if_many()


def pytest_collection_finish():
    """Leave modules and tests, which stay, out of every collection of garbage, and collect less often.

    Tracing makes very many objects that live for long, so that a twelfth of the time would go into looking at them.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


@pytest.fixture
def empty_home(tmp_path, monkeypatch):
    """No scale of an environment was measured: those of whoever runs the tests are not seen, and none is left there."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
