"""What may lie where an export is to be written, and what is written there."""

import numpy as np
import pytest

from jaxslm.hf.architectures import ARCHITECTURES
from jaxslm.hf.export import finished_folder, write_weights
from jaxslm.models.decoder import DecoderConfig


def test_two_exports_to_one_folder(tmp_path):
    """The second is refused while the first writes, and touches nothing of it."""
    out = tmp_path / "out"
    with finished_folder(out) as folder:
        (folder / "weights").write_text("first")
        with pytest.raises(ValueError, match="is being written by another export"), finished_folder(out):
            pass
    assert (out / "weights").read_text() == "first"


def test_what_was_left_of_an_export_is_cleared(tmp_path):
    (tmp_path / "out.incomplete" / "speech_tokenizer").mkdir(parents=True)
    (tmp_path / "out.incomplete" / "old").write_text("old")
    with finished_folder(tmp_path / "out") as folder:
        assert not list(folder.iterdir())
        (folder / "new").write_text("new")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["new"]


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "out.incomplete").write_text("mine")
    with pytest.raises(ValueError, match="out.incomplete is a file"), finished_folder(tmp_path / "out"):
        pass


class InMemory:
    def __init__(self, array):
        self._array, self.shape = array, array.shape

    def __getitem__(self, index):
        return self._array[index]

    def pieces(self, axis, stop=None):
        return [slice(0, stop or self.shape[axis])]


@pytest.mark.parametrize(
    ("value", "dtype", "message"),
    [(1e5, "float16", "norm/scale .*float16: export in bfloat16"), (np.nan, "float32", "norm/scale .*went wrong")],
)
def test_values_that_the_type_does_not_have_are_named(value, dtype, message, tmp_path):
    config = DecoderConfig(vocab_size=8, d_model=4, n_layers=1, n_heads=2, n_kv_heads=2, d_ff=8, tied_embeddings=True)
    shapes = {"embedding/weight": (8, 4), "norm/scale": (4,)}
    for name in ("attention_norm/scale", "feed_forward_norm/scale"):
        shapes[f"layers/{name}"] = (1, 4)
    shapes |= {f"layers/attention/{name}/weight": (1, 4, 4) for name in ("query", "key", "value", "output")}
    shapes |= {f"layers/feed_forward/{name}/weight": (1, 4, 8) for name in ("gate", "up")}
    shapes |= {"layers/feed_forward/down/weight": (1, 8, 4)}
    arrays = {name: InMemory(np.ones(shape, np.float32)) for name, shape in shapes.items()}
    arrays["norm/scale"]._array[2] = value
    options = dict(n_rows=8, dtype=dtype, max_file_bytes=10**9)
    with pytest.raises(ValueError, match=message):
        write_weights(tmp_path, arrays, config, ARCHITECTURES["llama"], **options)
    arrays["norm/scale"]._array[2] = 3.0
    write_weights(tmp_path, arrays, config, ARCHITECTURES["llama"], **options)
