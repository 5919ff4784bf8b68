"""A discovered objective as a portable folder, for people: to publish, to copy and to use years later.

It holds `objective.json` (class, fields, shapes, digests, provenance, evaluation), the parameters as safetensors and a
card. It is verified before it is used, and there is no pickle in it. The train state of a run that can be resumed is
another thing, see `metadisco.runs.train_state`.
"""

import dataclasses
import functools
import hashlib
import html
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import safetensors.flax

from metadisco.checkpoints import stored_trees
from metadisco.checkpoints.card import card, headlines, meta_steps_done
from metadisco.core import config, moved
from metadisco.core.files import CheckpointError, leaf_types
from metadisco.core.jax_defaults import own_defaults
from metadisco.core.score_table import counted
from metadisco.core.tensor_folder import TensorFolder
from metadisco.objectives import drift as drifts
from metadisco.objectives.base import NamedInputs, Objective
from metadisco.objectives.mirror_learning import MirrorLearning

ZOO = Path(__file__).parent / "zoo"
FOLDER = TensorFolder(
    document="objective.json",
    tensors="meta_params.safetensors",
    digest="meta_params_sha256",
    version=1,
    keys=frozenset({"objective", "features", "meta_params", "provenance", "evaluation"}),
)
_CARD = "README.md"


@dataclasses.dataclass(frozen=True)
class Discovered:
    """A discovered objective with everything that says where it came from and how good it is.

    Example:
        >>> discovered = load("quickstart")  # doctest: +SKIP
        >>> discovered  # doctest: +SKIP
        Discovered ExploringA2C, 197 meta-parameters
          preset exploring-a2c, seed 4, 120 meta-steps, 9 min
          grid-unseen: IQM 0.95 (a2c-count 0.94, a2c 0.93, ppo 0.92, dpo 0.91)
          labyrinths: IQM 1.00 (a2c-count 0.99, a2c 0.98, ppo 0.73, dpo 0.71)
          mazes: IQM 0.62 (a2c-count 0.86, a2c 0.50, dpo 0.00, ppo 0.00)
          grid-tiny: IQM 0.97 (ppo 0.94, dpo 0.92, a2c 0.87)
        >>> round(float(Discovered(MirrorLearning(), ()).drift(1.5, 2.0)), 3)  # of PPO: (1.5 - 1.2) * 2
        0.6
    """

    objective: Objective
    meta_params: Any  # nested dicts of arrays; () for a hand-written objective
    provenance: dict[str, Any] = dataclasses.field(
        default_factory=dict
    )  # command, seed, commit, versions, hardware, ...
    evaluation: dict[str, Any] = dataclasses.field(default_factory=dict)  # suite -> agent -> scores

    def __repr__(self) -> str:
        return "\n  ".join(self._lines())

    def _repr_html_(self) -> str:
        """What Jupyter shows."""
        head, *rest = map(html.escape, self._lines())
        return f"<div><b>{head}</b>{''.join(f'<br>{line}' for line in rest)}</div>"

    def _lines(self) -> list[str]:
        """What it is, how it was trained and what it reached, in a few lines; all of it is in the fields."""
        count = sum(leaf.size for leaf in jax.tree.leaves(self.meta_params))
        kind = config.class_name(self.objective).rpartition(":")[2]
        drift = getattr(self.objective, "drift", None)
        inside = f"({config.class_name(drift).rpartition(':')[2]})" if config.is_component(drift) else ""
        lines = [f"Discovered {kind}{inside}, {counted(count, 'meta-parameter')}"]
        origin = self.provenance
        told = [f"{name} {origin[name]}" for name in ("preset", "seed") if name in origin]
        told += [meta_steps_done(origin)] if "meta_steps" in origin else []
        told += [f"{origin['minutes']:.0f} min"] if isinstance(origin.get("minutes"), int | float) else []
        scores = headlines(self.evaluation)
        more = [f"and {counted(len(scores) - 4, 'suite')} more"] if len(scores) > 4 else []
        return [*lines, *([", ".join(told)] if told else []), *scores[:4], *more]

    @property
    def drift_rule(self) -> drifts.Drift:
        """The component that `drift` is made of. Raises ConfigError where the objective is not a `MirrorLearning`."""
        if not isinstance(self.objective, MirrorLearning):
            raise config.ConfigError(
                f"{config.class_name(self.objective)} has no drift: "
                "only a MirrorLearning (PPO, DPO, LPO, TA-LPO) has one."
            )
        return self.objective.drift

    @functools.cached_property
    def drift(self) -> Callable[..., jax.Array]:
        """The drift of a `MirrorLearning` as a plain function `drift(ratio, advantage, progress=0.0)`, for any PPO.

        An agent ascends mean[r A - drift(r, A, n/N)]: r = pi / pi_old, A normalised per minibatch, n/N the fraction of
        training that is over. The three broadcast; the result is float32, finite, and differentiable in r.

        Raises:
            config.ConfigError: where the objective is not a `MirrorLearning`.
        """
        rule, meta_params = self.drift_rule, self.meta_params

        def drift(
            ratio: jax.Array | float, advantage: jax.Array | float, progress: jax.Array | float = 0.0
        ) -> jax.Array:
            """D(r, A); see `Discovered.drift`."""
            return drifts.drift(rule, meta_params, ratio, advantage, progress)

        return drift


@own_defaults
def save(
    discovered: Discovered,
    folder: str | os.PathLike,
    *,
    overwrite: bool = False,
    card_scores: Mapping[str, Any] = MappingProxyType({}),
) -> Path:
    """Write a discovered objective as a portable folder; the folder appears complete or not at all.

    Args:
        discovered: What to write. The meta-parameters are arrays of numbers in dicts, FrozenDicts, lists and tuples.
        folder: Where to. Its parents are made.
        overwrite: Replace an older objective that is there. Anything else that is there is never replaced.
        card_scores: More scores for the card alone, suite -> agent -> scores. They are not in `objective.json`, so that
            every checkpoint does not carry numbers that are kept elsewhere.

    Raises:
        CheckpointError: If the folder exists, cannot be written, or the meta-parameters are something else.
    """
    folder = Path(folder).absolute()
    description, tensors, blob = _serialize(discovered.meta_params)
    shapes = {name: {"shape": list(leaf.shape), "dtype": leaf.dtype.name} for name, leaf in tensors.items()}
    document: dict[str, Any] = {
        "objective": config.to_data(discovered.objective),
        "features": list(features(discovered.objective)),
        "meta_params": shapes,
        "provenance": discovered.provenance,
        "evaluation": discovered.evaluation,
    }
    if description is not None:  # more than nested dicts
        document["structure"] = description
    sealed = FOLDER.seal(document, blob)
    FOLDER.write(folder, sealed, blob, beside={_CARD: _card(sealed, folder, card_scores).encode()}, overwrite=overwrite)
    return folder


@own_defaults
def load(name_or_path: str | os.PathLike, *, allow: tuple[str, ...] = ()) -> Discovered:
    """Read a discovered objective from a folder, a run's folder, or the zoo by name, and verify it.

    Args:
        name_or_path: One of `zoo_names()`, the folder that `save` wrote, or a run's folder that has it as `objective/`.
        allow: Packages of your own that the objective may be imported from; see `config.from_data`.

    Raises:
        CheckpointError: If it is not there, truncated, of another format version, tampered with or inconsistent.
        config.ConfigError: If its objective's class or fields are unknown, or its module is not allowed.
    """
    folder = _find(name_or_path)
    document, tensors = FOLDER.read(folder, safetensors.flax.load_file)  # its `load` of bytes does not know bfloat16
    _check_scores(document, folder)
    objective = config.from_data(document["objective"], allow=allow)
    meta_params = stored_trees.put_together(document.get("structure"), tensors)
    stored = {name: {"shape": list(leaf.shape), "dtype": leaf.dtype.name} for name, leaf in tensors.items()}
    if stored != document["meta_params"]:
        raise CheckpointError(
            f"The shapes in {folder / FOLDER.tensors} are not those that {FOLDER.document} gives. Get the folder again."
        )
    _check_shapes(objective, meta_params, folder)
    return Discovered(objective, meta_params, moved.current(document["provenance"]), document["evaluation"])


def features(objective: Objective) -> tuple[str, ...]:
    """Names of the inputs of a learned objective, in order; none of a hand-written one."""
    return tuple(objective.features) if isinstance(objective, NamedInputs) else ()


@own_defaults
def digest(discovered: Discovered) -> str:
    """SHA-256 of the file of an objective's meta-parameters, in hexadecimal: what `objective.json` says of them."""
    return hashlib.sha256(_serialize(discovered.meta_params)[2]).hexdigest()


def zoo_names() -> tuple[str, ...]:
    """Names of the discovered objectives that ship with metadisco."""
    return tuple(sorted(path.parent.name for path in ZOO.glob(f"*/{FOLDER.document}")))


def _serialize(meta_params: Any) -> tuple[Any, dict[str, jax.Array], bytes]:
    """The description of a tree, its tensors, and the file of them."""
    description, leaves = stored_trees.take_apart(meta_params)
    tensors = {name: jnp.asarray(leaf) for name, leaf in leaves.items()}
    return description, tensors, safetensors.flax.save(tensors, FOLDER.metadata)


def _find(name_or_path: str | os.PathLike) -> Path:
    path, name = Path(name_or_path), str(name_or_path)
    if isinstance(name_or_path, str) and name in zoo_names():
        return ZOO / name
    for folder in (path, path / "objective"):
        if FOLDER.is_in(folder):
            return folder
    if path.exists():
        raise CheckpointError(f"{path} is not a checkpoint folder: it has no {FOLDER.document}.")
    raise CheckpointError(f"No folder and no shipped objective is called {name!r}.{config.nearest(name, zoo_names())}")


def _check_scores(document: Mapping[str, Any], folder: Path) -> None:
    """Whoever writes digests may write anything: what is read as tables must be tables."""
    scores = document["evaluation"]
    is_table = isinstance(scores, dict) and all(
        isinstance(agents, dict) and all(isinstance(row, dict) for row in agents.values()) for agents in scores.values()
    )
    if not is_table or not isinstance(document["provenance"], dict):
        raise CheckpointError(
            f"{folder / FOLDER.document} has an evaluation or a provenance that is none. Get it again."
        )


def _check_shapes(objective: Objective, meta_params: Any, folder: Path) -> None:
    """Compare the stored parameters with those that the objective would initialize."""
    misfit = misfit_of(objective, meta_params)
    if misfit:
        raise CheckpointError(f"{folder} does not fit its objective: {misfit}.")


def misfit_of(objective: Objective, meta_params: Any) -> str:
    """Why meta-parameters cannot be those of an objective, as half a sentence; empty where they can."""
    name_of_class = config.class_name(objective)
    shapes = jax.eval_shape(objective.init, jax.random.key(0))
    wanted, stored = leaf_types(shapes), leaf_types(meta_params)
    for name in dict.fromkeys([*wanted, *stored]):
        if wanted.get(name) != stored.get(name):
            there, here = stored.get(name, "absent"), wanted.get(name, "absent")
            return f"meta_params{name} is {there} in the file and {here} in {name_of_class}"
    there, here = str(jax.tree.structure(meta_params)), str(jax.tree.structure(shapes))
    if wanted and there != here:
        return f"meta_params are a {there} in the file and a {here} in {name_of_class}"
    return ""


def _card(document: dict[str, Any], folder: Path, scores: Mapping[str, Any]) -> str:
    """The README.md of a portable objective; `scores` are those that the document does not have."""
    is_shipped = folder.parent == ZOO
    place = folder.name if is_shipped else f"path/to/{folder.name}"
    return card(document, folder.name, place, scores, is_shipped=is_shipped)
