import dataclasses
import hashlib
import re

import numpy as np
import pytest

from jaxslm.units import published
from jaxslm.units.published import PUBLISHED, Weights, find_published, open_inventory
from tests.units.test_quantizers import quantizer


class Encoder:
    name, layer, frame_rate, dim, weights_sha256 = "folder-name", 0, 50.0, 24, "abc"


@pytest.fixture
def encoder(monkeypatch):
    found = Encoder()

    def load(name, layer):
        found.layer = layer
        return found

    monkeypatch.setattr(published, "load_encoder", load)
    return found


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
    with pytest.raises(ValueError, match="no published inventory 'hubert-base-ls960-l6-k101'.*ls960-l6-k100"):
        find_published("hubert-base-ls960-l6-k101")


def test_a_published_inventory_brings_its_layer_and_rate(encoder, tmp_path):
    encoder.frame_rate = 25.0
    file = centroids(tmp_path / "km.npy", 500)
    inventory = open_inventory("some/folder", file, published="mhubert-base-25hz-l11-k500")
    assert inventory.name == "mhubert-base-25hz-l11-k500" and encoder.layer == 11
    assert (inventory.frame_rate, inventory.deduplicated, inventory.mean) == (24.99, True, None)
    assert (inventory.weights_sha256, inventory.encoder_folder) == ("abc", "some/folder")
    assert np.array_equal(inventory.centroids, np.load(file))


def test_a_linear_quantizer_of_a_published_inventory(encoder, tmp_path):
    encoder.frame_rate = 25.0
    quantizer(k=501).save(tmp_path / "L11_quantizer_500.safetensors")
    inventory = open_inventory("f", tmp_path / "L11_quantizer_500.safetensors", published="mhubert-base-25hz-l11-k501")
    assert (inventory.size, inventory.centroids) == (501, None)
    assert inventory.linear.sha256 == quantizer(k=501).sha256


def test_centroids_of_ones_own(encoder, tmp_path):
    inventory = open_inventory("some/folder", centroids(tmp_path / "km.npy", 30), layer=7)
    assert inventory.name == "folder-name-l7-k30" and inventory.frame_rate == 50.0 and encoder.layer == 7


def test_files_that_do_not_fit_are_refused(encoder, tmp_path):
    name = "hubert-base-ls960-l6-k50"
    with pytest.raises(ValueError, match="km.npy holds centroids of 49 units, but .* centroids of 50; its file is"):
        open_inventory("f", centroids(tmp_path / "km.npy", 49), published=name)
    with pytest.raises(ValueError, match="for features of 12 numbers, but f gives 24; take the quantizer"):
        open_inventory("f", centroids(tmp_path / "km.npy", 50, dim=12), published=name)
    quantizer(k=50).save(tmp_path / "linear.safetensors")
    with pytest.raises(ValueError, match="holds a linear quantizer of 50 units"):
        open_inventory("f", tmp_path / "linear.safetensors", published=name)
    encoder.frame_rate = 25.0
    with pytest.raises(ValueError, match="has 50 frames a second, but this encoder 25"):
        open_inventory("f", centroids(tmp_path / "km.npy", 50), published=name)


def test_the_original_file_must_have_its_sha256(encoder, tmp_path, monkeypatch):
    joblib, cluster = pytest.importorskip("joblib"), pytest.importorskip("sklearn.cluster")
    name, file = "hubert-base-ls960-l6-k50", tmp_path / "km.bin"
    fitted = cluster.KMeans(50, n_init=1).fit(np.random.default_rng(0).normal(size=(300, 24)))
    joblib.dump(fitted, file)
    with pytest.raises(ValueError, match="km.bin has SHA-256 .* but that of hubert-base-ls960-l6-k50 is d01a7d5b"):
        open_inventory("f", file, published=name)
    weights = Weights("https://elsewhere/km.bin", hashlib.sha256(file.read_bytes()).hexdigest())
    monkeypatch.setitem(PUBLISHED, name, dataclasses.replace(PUBLISHED[name], quantizer=weights))
    inventory = open_inventory("f", file, published=name)
    assert np.array_equal(inventory.centroids, fitted.cluster_centers_.astype(np.float32))
