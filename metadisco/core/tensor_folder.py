"""A folder of arrays with a JSON document that describes them: portable objectives and level buffers.

The arrays are a safetensors file, so there is no pickle. The document gives the version of the format, the digest of
the arrays and its own. A folder is there complete or not at all, and everything in it is verified before it is used.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors

from metadisco.core.files import CheckpointError, hash_document, read_document, read_hashed, write_folder


@dataclass(frozen=True)
class TensorFolder:
    """A kind of folder.

    Attributes:
        document: name of the JSON file, by which a folder of this kind is known.
        tensors: name of the safetensors file.
        digest: what the document calls the digest of the arrays.
        version: of the format.
        keys: what the document must have beside the version and the digests.
    """

    document: str
    tensors: str
    digest: str
    version: int
    keys: frozenset[str]

    @property
    def metadata(self) -> dict[str, str]:
        """What the safetensors file says of itself."""
        return {"metadisco": json.dumps({"format_version": self.version})}

    def seal(self, document: Mapping[str, Any], tensors: bytes) -> dict[str, Any]:
        """A document with its version and digests.

        Args:
            document: metadata of the arrays, as JSON values.
            tensors: the safetensors file, written with `metadata`.

        Raises:
            CheckpointError: something in the document is no JSON value.
        """
        sealed = {"format_version": self.version, **document, self.digest: hashlib.sha256(tensors).hexdigest()}
        try:
            return sealed | {"sha256": hash_document(sealed)}
        except (TypeError, ValueError) as error:
            raise CheckpointError(
                f"Provenance and evaluation hold only JSON values (finite numbers): {error}."
            ) from error

    def write(
        self,
        folder: Path,
        sealed: Mapping[str, Any],
        tensors: bytes,
        *,
        beside: Mapping[str, bytes] | None = None,
        overwrite: bool,
    ) -> None:
        """Write a folder, complete or not at all; its parents are made.

        Args:
            folder: where to; an absolute path.
            sealed: from `seal`.
            tensors: the arrays that were sealed.
            beside: content of other files by name.
            overwrite: replace an older folder of this kind. Anything else that is there is never replaced.

        Raises:
            CheckpointError: the folder exists or cannot be written.
        """
        text = json.dumps(sealed, indent=2, allow_nan=False) + "\n"
        contents = {self.tensors: tensors, self.document: text.encode(), **(beside or {})}
        write_folder(folder, contents, marker=self.document, overwrite=overwrite)

    def is_in(self, folder: Path) -> bool:
        """Whether there is a folder of this kind."""
        return (folder / self.document).is_file()

    def read(self, folder: Path, load_file: Callable[[Path], dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read a folder and verify its digests.

        Args:
            folder: of this kind.
            load_file: of safetensors, for JAX or NumPy.

        Returns:
            The document and the arrays by name.

        Raises:
            CheckpointError: it cannot be read, is truncated, of another version, changed or not complete.
        """
        document = read_document(folder / self.document, version=self.version, keys={*self.keys, self.digest})
        path = folder / self.tensors
        read_hashed(path, document[self.digest], document=self.document)
        try:
            return document, load_file(path)
        except safetensors.SafetensorError as error:
            raise CheckpointError(f"{path} is not a safetensors file: {error}.") from error
