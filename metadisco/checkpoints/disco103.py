"""Disco103 as it was published: an npz file of the weights, to a discovered objective.

The file is `disco_103.npz` of github.com/google-deepmind/disco_rl, under CC BY 4.0. It does not come with metadisco.
"""

import hashlib
import io
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from metadisco.checkpoints.checkpoint import Discovered, load
from metadisco.core.files import CheckpointError
from metadisco.core.jax_defaults import own_defaults
from metadisco.objectives.disco103 import Disco103

DISCO103 = "disco103:"  # what the command line calls the published weights, before the path of them
FILE = "disco_103.npz"
SOURCE = "https://github.com/google-deepmind/disco_rl/blob/main/disco_rl/update_rules/weights/disco_103.npz"
SHA256 = "dac840a15b81e8805326363458c33979626172618f620d9e6e170315388530aa"
PUBLICATION = (
    "J. Oh, G. Farquhar, I. Kemaev, D. A. Calian, M. Hessel, L. Zintgraf, S. Singh, H. van Hasselt and D. Silver, "
    "Discovering State-of-the-art Reinforcement Learning Algorithms, Nature, 2025, doi:10.1038/s41586-025-09761-x"
)
LICENSE = {
    "name": "CC BY 4.0",
    "url": "https://creativecommons.org/licenses/by/4.0/legalcode",
    "attribution": f"Disco103, copyright 2025 Google LLC. {PUBLICATION}. From {SOURCE}.",
    "changes": "The numbers are unchanged; the arrays have other names, and those of convolutions over one action lost "
    "an axis of length 1.",
    "disclaimer": "Distributed as is, without warranties or conditions of any kind, express or implied.",
}
_READER, _MEMORY = "lstm", "lstm/~/meta_lstm/~unroll"
_LAYERS: dict[tuple[str, ...], str] = {  # place in the meta-parameters -> name in the file
    **{
        (ours, net, layer): f"{theirs}/{name}/~/linear_{number}"
        for ours, theirs in (("reader", _READER), ("memory", _MEMORY))
        for net, name in (("y", "mlp"), ("z", "mlp_1"))
        for number, layer in enumerate(("hidden", "out"))
    },
    **{
        (ours, "actions", layer): f"{theirs}/sequential/{name}"
        for ours, theirs in (("reader", _READER), ("memory", _MEMORY))
        for layer, name in (("hidden", "conv1_d"), ("out", "conv1_d_1"))
    },
    ("reader", "lstm"): f"{_READER}/lstm/linear",
    ("memory", "lstm"): f"{_MEMORY}/lstm/linear",
    ("memory", "mix"): f"{_MEMORY}/mlp_2/~/linear_0",
    ("memory_scale",): f"{_READER}/linear",
    ("summary",): f"{_READER}/linear_1",
    ("y_hat",): f"{_READER}/linear_2",
    ("z_hat",): f"{_READER}/linear_3",
    ("pi_hat", "hidden"): f"{_READER}/sequential_1/conv1_d",
    ("pi_hat", "out"): f"{_READER}/linear_4",
}


@own_defaults
def load_disco103(path: str | os.PathLike) -> Discovered:
    """Read the published weights of Disco103, and check them.

    Args:
        path: `disco_103.npz`, or the folder that it is in.

    Returns:
        The objective with its weights; the license and whom to name are in its provenance and card.

    Raises:
        CheckpointError: it is missing or damaged, or an array is missing, unknown, of another shape or type, or not
            finite. The message names the array and says where the file comes from.

    Example:
        >>> discovered = load_disco103("disco_103.npz")  # doctest: +SKIP
    """
    file = Path(path)
    file = file / FILE if file.is_dir() else file
    try:
        content = file.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read ({error.strerror or error}); {_advice()}") from error
    objective = Disco103()
    meta_params = to_meta_params(_read(content, file), objective, str(file))
    provenance = {
        "name": "Disco103",
        "file": FILE,
        "sha256": hashlib.sha256(content).hexdigest(),
        "source": SOURCE,
        "license": LICENSE,
    }
    return Discovered(objective, meta_params, provenance)


def load_by_reference(reference: str) -> Discovered:
    """`load`, and of `disco103:PATH` the published weights there. Raises as the two do."""
    if reference.startswith(DISCO103):
        return load_disco103(reference.removeprefix(DISCO103))
    return load(reference)


def as_discovered(given: Discovered | str | os.PathLike) -> Discovered:
    """A discovered objective, or what its name or path stands for; see `load_by_reference`.

    Raises:
        ValueError: where it is neither.
    """
    if isinstance(given, Discovered):
        return given
    if isinstance(given, str | os.PathLike):
        return load_by_reference(os.fspath(given))
    raise ValueError(
        "a discovered objective is a name in the zoo, a folder, or what metadisco.load returns; got "
        f"{type(given).__name__}"
    )


def to_meta_params(arrays: dict[str, np.ndarray], objective: Disco103, where: str) -> Any:
    """Meta-parameters from the arrays of a file, by their names there. Raises CheckpointError as `load_disco103`."""
    wanted = names_and_shapes(objective)
    unknown = sorted(set(arrays) - set(wanted))
    if unknown:
        raise CheckpointError(f"{where} has an array {unknown[0]!r}, which Disco103 has not; {_advice()}")
    for name, shape in wanted.items():
        if name not in arrays:
            raise CheckpointError(f"{where} has no array {name!r}; {_advice()}")
        array = arrays[name]
        if array.shape != shape or array.dtype != np.float32:
            raise CheckpointError(
                f"{where}: the array {name!r} is {array.dtype}{list(array.shape)} and must be float32{list(shape)}; "
                f"{_advice()}"
            )
        if not np.isfinite(array).all():
            raise CheckpointError(f"{where}: the array {name!r} has numbers that are not finite; {_advice()}")
    meta_params: dict[str, Any] = {}
    for place, name in _LAYERS.items():
        node = meta_params
        for part in place:
            node = node.setdefault(part, {})
        kernel = arrays[f"{name}/w"]
        node["kernel"] = jnp.asarray(kernel[0] if kernel.ndim == 3 else kernel)
        node["bias"] = jnp.asarray(arrays[f"{name}/b"])
    return meta_params


def names_and_shapes(objective: Disco103) -> dict[str, tuple[int, ...]]:
    """The arrays of a file of weights: name -> shape."""
    shapes = jax.eval_shape(objective.init, jax.eval_shape(jax.random.key, 0))
    found = {}
    for place, name in _LAYERS.items():
        layer = shapes
        for part in place:
            layer = layer[part]
        kernel = layer["kernel"].shape
        found[f"{name}/w"] = (1, *kernel) if "conv1_d" in name else kernel
        found[f"{name}/b"] = layer["bias"].shape
    return found


def _read(content: bytes, file: Path) -> dict[str, np.ndarray]:
    """All arrays of an npz file."""
    damage = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error)
    try:
        archive = np.load(io.BytesIO(content), allow_pickle=False)
        names = archive.files
    except (*damage, AttributeError) as error:
        raise CheckpointError(f"{file} is truncated or no npz file ({error}); {_advice()}") from error
    arrays = {}
    for name in names:
        try:
            arrays[name] = archive[name]
        except damage as error:
            raise CheckpointError(f"{file}: the array {name!r} is damaged ({error}); {_advice()}") from error
    return arrays


def _advice() -> str:
    return f"get it again from {SOURCE}"
