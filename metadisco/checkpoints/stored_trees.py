"""Meta-parameters as named tensors and a description of what holds them, both of which files can keep.

Any nesting of dicts, flax's FrozenDicts, lists, tuples and None with arrays of numbers in it comes back as it was;
nothing is imported or called to build it. Nested dicts alone, the usual case, are named by their keys and need no
description; other trees name tensors by JSON pointers (RFC 6901).
"""

from collections.abc import Mapping
from typing import Any

import jax
from flax.core import FrozenDict

from metadisco.core.files import CheckpointError, in_words, is_key

Node = Any  # of a description: {"dict": {key: Node}}, FrozenDict likewise, {"list": [Node]}, tuple likewise, name, None
_DICTS: dict[str, Any] = {"dict": dict, "FrozenDict": FrozenDict}
_SEQUENCES: dict[str, Any] = {"list": list, "tuple": tuple}
_DTYPES = frozenset(
    {"bool", "float16", "bfloat16", "float32", "float64"}
    | {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
)


def take_apart(tree: Any) -> tuple[Node, dict[str, Any]]:
    """Return the description of a tree, None where names alone say it, and its arrays (or their shapes) by name.

    Raises:
        CheckpointError: for what could not be built again; it names the place.
    """
    tensors: dict[str, Any] = {}
    description = _describe(tree, (), tensors)
    if type(tree) is tuple and not tree:
        return None, {}
    names = {pointer: pointer[1:] for pointer in tensors}
    if type(tree) is dict and tree and _is_plain(tree):
        return None, {names[pointer]: leaf for pointer, leaf in tensors.items()}
    return description, tensors


def put_together(description: Node, tensors: Mapping[str, Any]) -> Any:
    """The inverse of `take_apart`.

    Raises:
        CheckpointError: where the two do not belong together.
    """
    if description is None:
        return _nest(tensors) if tensors else ()
    used: list[str] = []
    try:
        tree = _build(description, tensors, used)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"the description of the meta-parameters is damaged: {in_words(error)}. Get it again."
        ) from error
    if sorted(used) != sorted(tensors):
        raise CheckpointError("the description of the meta-parameters does not name each tensor once. Get it again.")
    return tree


def check_init(objective: Any) -> None:
    """Raise CheckpointError where an objective's meta-parameters could not be kept, before anything is compiled."""
    try:
        tree = jax.eval_shape(objective.init, jax.eval_shape(jax.random.key, 0))
    except TypeError as error:
        if "not a valid JAX type" not in str(error):
            raise
        kind = type(objective).__name__
        raise CheckpointError(f"{kind}.init returns something that is no array of numbers: {error}") from error
    take_apart(tree)


def _describe(node: Any, path: tuple, tensors: dict[str, Any]) -> Node:
    if node is None:
        return None
    for name, make in (*_DICTS.items(), *_SEQUENCES.items()):
        if type(node) is not make:
            continue
        if name in _SEQUENCES:
            return {name: [_describe(each, (*path, index), tensors) for index, each in enumerate(node)]}
        wrong = [key for key in node if not isinstance(key, str)]
        if wrong:
            raise CheckpointError(f"{_place(path)} has the key {wrong[0]!r}: keys of meta-parameters must be strings.")
        return {name: {key: _describe(each, (*path, key), tensors) for key, each in node.items()}}
    if not hasattr(node, "dtype") or not hasattr(node, "shape"):
        raise CheckpointError(
            f"{_place(path)} is a {type(node).__name__}: meta-parameters are arrays of numbers in dicts, FrozenDicts, "
            "lists and tuples."
        )
    if is_key(node) or node.dtype.name not in _DTYPES:
        raise CheckpointError(f"{_place(path)} is an array of {node.dtype}: meta-parameters must be plain numbers.")
    pointer = "".join(f"/{_escape(str(part))}" for part in path)
    tensors[pointer] = node
    return pointer


def _build(node: Node, tensors: Mapping[str, Any], used: list[str]) -> Any:
    if node is None:
        return None
    if isinstance(node, str):
        used.append(node)
        return tensors[node]
    ((name, children),) = node.items()
    if name in _DICTS:
        return _DICTS[name]({key: _build(each, tensors, used) for key, each in children.items()})
    return _SEQUENCES[name]([_build(each, tensors, used) for each in children])


def _is_plain(node: Any) -> bool:
    """Whether names alone say what a tree is: nested dicts that are not empty, with keys that need no escape."""
    if type(node) is not dict:
        return node is not None and not isinstance(node, (FrozenDict, list, tuple))
    fine = all(key and not set("/~") & set(key) and key != "__metadata__" for key in node)
    return bool(node) and fine and all(map(_is_plain, node.values()))


def _nest(tensors: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, tensor in tensors.items():
        *outer, last = name.split("/")
        place = tree
        for part in outer:
            place = place.setdefault(part, {})
        place[last] = tensor
    return tree


def _escape(part: str) -> str:
    return part.replace("~", "~0").replace("/", "~1")


def _place(path: tuple) -> str:
    return "meta_params" + "".join(f"[{part!r}]" for part in path)
