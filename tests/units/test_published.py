import dataclasses
import hashlib
import re

import numpy as np
import pytest

from jaxslm.units.published import PUBLISHED, Weights, find_published, open_inventory
from tests.units.test_quantizers import quantizer


@dataclasses.dataclass
class Encoder:
    layer: int = 6
    frame_rate: float = 50.0
    name: str = "hubert-abc"
    dim: int = 24
    source_sha256: str = ""

    @property
    def identity(self):
        same = dict(layer=self.layer, frame_rate=self.frame_rate)
        return same | dict(encoder=self.name, weights_sha256="abcdef", encoder_folder="some/folder")


def centroids(path, k, dim=24):
    np.save(path, np.random.default_rng(0).normal(size=(k, dim)).astype(np.float32))
    return path


def test_names_say_what_is_in_them():
    for name, known in PUBLISHED.items():
        assert re.sub("-expresso$", "", name) == f"{known.encoder}-l{known.layer}-k{known.size}"
        assert known.frame_rate in (50.0, 24.99) and known.deduplicated
        for weights in (known.encoder_weights, known.quantizer):
            assert weights.url.startswith("https://") and re.fullmatch("[0-9a-f]{64}|", weights.sha256)
        assert known.licence and known.source.startswith("https://")
    hashes = [known.quantizer.sha256 for known in PUBLISHED.values() if known.quantizer.sha256]
    assert len(set(hashes)) == len(hashes)


def test_an_unknown_name_is_refused_with_the_closest():
    with pytest.raises(
        ValueError, match="no folder and no published inventory 'hubert-base-ls960-l6-k101'.*ls960-l6-k100"
    ):
        find_published("hubert-base-ls960-l6-k101")


def test_a_published_inventory_brings_its_name_and_rate(tmp_path):
    file = centroids(tmp_path / "km.npy", 500)
    inventory = open_inventory(Encoder(11, 25.0), file, published="mhubert-base-25hz-l11-k500")
    assert inventory.name == "mhubert-base-25hz-l11-k500"
    assert (inventory.frame_rate, inventory.deduplicated, inventory.mean) == (24.99, True, None)
    assert (inventory.weights_sha256, inventory.encoder_folder) == ("abcdef", "some/folder")
    assert np.array_equal(inventory.centroids, np.load(file))


def test_a_linear_quantizer_of_a_published_inventory(tmp_path):
    file = tmp_path / "L11_quantizer_500.safetensors"
    quantizer(k=501).save(file)
    inventory = open_inventory(Encoder(11, 25.0), file, published="mhubert-base-25hz-l11-k501")
    assert (inventory.size, inventory.centroids) == (501, None)
    assert inventory.linear.sha256 == quantizer(k=501).sha256


def test_centroids_of_ones_own(tmp_path):
    inventory = open_inventory(Encoder(7), centroids(tmp_path / "km.npy", 30))
    assert inventory.name == "hubert-abc-l7-k30" and inventory.frame_rate == 50.0


def test_files_that_do_not_fit_are_refused(tmp_path):
    name, encoder = "hubert-base-ls960-l6-k50", Encoder()
    with pytest.raises(ValueError, match="km.npy holds centroids of 49 units, but .* centroids of 50; its file is"):
        open_inventory(encoder, centroids(tmp_path / "km.npy", 49), published=name)
    with pytest.raises(ValueError, match="for features of 12 numbers, but hubert-abc gives 24; take the quantizer"):
        open_inventory(encoder, centroids(tmp_path / "km.npy", 50, dim=12), published=name)
    quantizer(k=50).save(tmp_path / "linear.safetensors")
    with pytest.raises(ValueError, match="holds a linear quantizer of 50 units"):
        open_inventory(encoder, tmp_path / "linear.safetensors", published=name)
    with pytest.raises(ValueError, match="has 50 frames a second, but this encoder 25"):
        open_inventory(Encoder(frame_rate=25.0), centroids(tmp_path / "km.npy", 50), published=name)


def test_an_encoder_of_another_kind_or_layer_is_refused(tmp_path):
    file = centroids(tmp_path / "km.npy", 50)
    for encoder, found in (
        (Encoder(name="data2vec-audio-12"), "layer 6 of data2vec-audio"),
        (Encoder(7), "layer 7 of hubert"),
        (Encoder(name="mfcc"), "layer 6 of mfcc"),
    ):
        with pytest.raises(ValueError, match=f"is of layer 6 of a hubert model .* give {found}; correct them"):
            open_inventory(encoder, file, published="hubert-base-ls960-l6-k50")


def test_an_encoder_converted_from_another_file_is_refused(tmp_path):
    name, file = "hubert-base-ls960-l6-k50", centroids(tmp_path / "km.npy", 50)
    right = PUBLISHED[name].encoder_weights.sha256
    assert open_inventory(Encoder(source_sha256=right), file, published=name).size == 50
    with pytest.raises(
        ValueError, match=f"with SHA-256 {right}, but units.encoder was converted .* SHA-256 {'0' * 64}"
    ):
        open_inventory(Encoder(source_sha256="0" * 64), file, published=name)


def test_the_original_file_must_have_its_sha256(tmp_path, monkeypatch):
    encoder = Encoder()
    joblib, cluster = pytest.importorskip("joblib"), pytest.importorskip("sklearn.cluster")
    name, file = "hubert-base-ls960-l6-k50", tmp_path / "km.bin"
    fitted = cluster.KMeans(50, n_init=1).fit(np.random.default_rng(0).normal(size=(300, 24)))
    joblib.dump(fitted, file)
    with pytest.raises(ValueError, match="km.bin has SHA-256 .* but that of hubert-base-ls960-l6-k50 is d01a7d5b"):
        open_inventory(encoder, file, published=name)
    weights = Weights("https://elsewhere/km.bin", hashlib.sha256(file.read_bytes()).hexdigest())
    monkeypatch.setitem(PUBLISHED, name, dataclasses.replace(PUBLISHED[name], quantizer=weights))
    inventory = open_inventory(encoder, file, published=name)
    assert np.array_equal(inventory.centroids, fitted.cluster_centers_.astype(np.float32))
