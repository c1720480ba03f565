"""Tensors of a Hugging Face folder as they are needed: float32, finite, weight norm taken out."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from jaxslm.hf.tensors import TensorFolder
from jaxslm.nn.weight_norm import fold

# A kernel as it is, or as its size and direction in either of the two spellings of weight norm.
KERNELS = (
    ("{}.weight",),
    ("{}.weight_g", "{}.weight_v"),
    tuple(f"{{}}.parametrizations.weight.original{i}" for i in "01"),
)


def _weight_norm(size: np.ndarray, direction: np.ndarray) -> np.ndarray:
    axes = tuple(axis for axis, n in enumerate(size.shape) if n == 1)
    if size.ndim != direction.ndim:
        raise ValueError("sizes for other axes")
    np.broadcast_to(size, direction.shape)
    return fold(size, direction, axes)


class CheckedTensors:
    """What a folder has under a name, or makes of several. Raises ValueError naming folder, tensor and cure.

    locate: where the tensor of a name is, and its name there.
    """

    def __init__(self, folder: Path, locate: Callable[[str], tuple[TensorFolder, str]]):
        self.folder, self._locate = folder, locate

    def read(self, theirs: str) -> np.ndarray:
        source, name = self._locate(theirs)
        if name not in source:
            raise ValueError(
                f"{self.folder} lacks {name}: its config.json and its weights do not belong together; copy both from "
                "one model"
            )
        value = np.array(source.read(name), np.float32)  # a copy: what is read is a map of the file
        if not np.isfinite(value).all():
            raise ValueError(
                f"{source.where(name)}: {name} has values that are not finite (NaN, infinite): the model is broken; "
                "use another copy of it"
            )
        return value

    def kernel(self, theirs: str) -> np.ndarray:
        """Of a convolution of that name, in any spelling."""
        for spelling in KERNELS:
            names = [name.format(theirs) for name in spelling]
            if all(name in source for source, name in map(self._locate, names)):
                return self.made_of(names, _weight_norm) if len(names) > 1 else self.read(names[0])
        name = self._locate(theirs)[1]
        raise ValueError(
            f"{self.folder} lacks {name}.weight, also as weight_g and weight_v or parametrizations: the weights are "
            "incomplete or of another model; copy them again"
        )

    def made_of(self, names: Sequence[str], make: Callable[..., np.ndarray]) -> np.ndarray:
        parts = [self.read(name) for name in names]
        try:
            with np.errstate(all="ignore"):
                made = make(*parts)
        except ValueError:  # shapes
            made = np.array(np.nan)
        if not np.isfinite(made).all():
            raise ValueError(
                f"{self.folder}: {', '.join(self._locate(name)[1] for name in names)} have shapes "
                f"{', '.join(str(list(part.shape)) for part in parts)} and values that do not belong together: copy "
                "the model again"
            )
        return made
