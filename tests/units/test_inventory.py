import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from jaxslm.audio.mfcc import mfcc_39
from jaxslm.units import inventory as inventory_module
from jaxslm.units.encoders import load_encoder
from jaxslm.units.inventory import UnitInventory
from jaxslm.units.learning import learn_inventory
from jaxslm.units.quantizers import LinearQuantizer


def clips(n=6, seconds=1.0):
    rng = np.random.default_rng(0)
    time = np.arange(int(16000 * seconds)) / 16000
    return [
        (0.3 * np.sin(2 * np.pi * (200 + 100 * i) * time * (1 + time)) + 0.01 * rng.normal(size=len(time))).astype("f4")
        for i in range(n)
    ]


@pytest.fixture(scope="module")
def inventory():
    return learn_inventory(load_encoder("mfcc"), iter(clips()), k=16, seed=0)


def test_encode_is_the_nearest_normalised_centroid(inventory):
    assert inventory.name == "mfcc-l0-k16" and inventory.frame_rate == 50.0 and inventory.centroids.shape == (16, 39)
    features = (mfcc_39(clips()[2]).astype(np.float64) - inventory.mean) / inventory.std
    expected = ((features[:, None] - inventory.centroids) ** 2).sum(axis=-1).argmin(axis=1)
    units = inventory.encode(clips()[2])
    assert np.array_equal(units.expand(), expected) and np.all(np.diff(units.ids) != 0)
    every_frame = dataclasses.replace(inventory, deduplicated=False).encode(clips()[2])
    assert np.array_equal(every_frame.ids, expected) and np.all(every_frame.durations == 1)


def test_features_are_normalised_over_all_clips(inventory):
    features = np.concatenate([mfcc_39(clip) for clip in clips()]).astype(np.float64)
    np.testing.assert_allclose(inventory.mean, features.mean(axis=0), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(inventory.std, features.std(axis=0), rtol=1e-4)


def test_more_frames_than_wanted_are_sampled_evenly():
    marked = [np.full(16000, 0.0, np.float32) for _ in range(40)]
    for i, clip in enumerate(marked):
        clip[::2] = i / 40  # the level, and so the first cepstrum, tells the clip
    learnt = learn_inventory(load_encoder("mfcc"), marked, k=4, seed=0, max_frames=300)
    everything = np.concatenate([mfcc_39(clip) for clip in marked])
    spread = everything[:, 0].std() / np.sqrt(300)
    assert abs(learnt.mean[0] - everything[:, 0].mean()) < 4 * spread
    assert learnt == learn_inventory(load_encoder("mfcc"), marked, k=4, seed=0, max_frames=300)
    assert learnt != learn_inventory(load_encoder("mfcc"), marked, k=4, seed=1, max_frames=300)


def test_saved_and_loaded_is_the_same(inventory, tmp_path):
    inventory.save(tmp_path / "units")
    loaded = UnitInventory.load(tmp_path / "units")
    assert loaded == inventory and loaded.sha256 == inventory.sha256
    assert loaded.encode(clips()[0]) == inventory.encode(clips()[0])
    assert sorted(path.name for path in (tmp_path / "units").iterdir()) == ["centroids.npy", "inventory.json"]


def test_saving_again_writes_nothing_and_a_full_disk_harms_nothing(inventory, tmp_path, monkeypatch):
    def full(*_):
        raise OSError("no space left on device")

    inventory.save(tmp_path)
    monkeypatch.setattr(np, "save", full)
    inventory.save(tmp_path)
    other = dataclasses.replace(inventory, centroids=inventory.centroids + 1)
    with pytest.raises(OSError, match="no space"):
        other.save(tmp_path)
    assert UnitInventory.load(tmp_path) == inventory
    assert sorted(path.name for path in tmp_path.iterdir()) == ["centroids.npy", "inventory.json"]
    monkeypatch.undo()
    (tmp_path / "centroids.npy").write_bytes(b"")  # left by a kill: mended
    inventory.save(tmp_path)
    other.save(tmp_path)
    assert UnitInventory.load(tmp_path) == other


def test_whatever_changes_the_units_changes_the_hash(inventory):
    changes = [
        {"layer": 1},
        {"frame_rate": 25.0},
        {"deduplicated": False},
        {"centroids": inventory.centroids + np.float32(1e-6)},
        {"mean": inventory.mean * 2},
        {"mean": None, "std": None},
        {"encoder": "other"},
    ]
    hashes = {dataclasses.replace(inventory, **change).sha256 for change in changes} | {inventory.sha256}
    assert len(hashes) == len(changes) + 1


def test_inventories_of_earlier_releases_keep_their_hash():
    centroids = np.arange(20, dtype=np.float32).reshape(4, 5)
    inventory = UnitInventory("mfcc", 0, 50.0, centroids, 4, mean=np.zeros(5), std=np.ones(5))
    assert inventory.sha256.startswith("3d19ba0bcffa70512a81a46a1124e102")
    assert (
        UnitInventory("precomputed:x", 6, 25.0, None, 7).sha256
        == "6f8162e69247bde572b4fb9177ddfcebbe39e928fbf6b4d76be46bd894dcdbbb"
    )


class Encoder:
    """Tens of samples as frames, scaled by its "weights"."""

    name, layer, frame_rate, dim = "tens", 3, 1600.0, 10

    def __init__(self, scale=1.0):
        self.scale, self.weights_sha256, self.batches = np.float32(scale), f"weights{scale}", []

    @property
    def identity(self):
        same = dict(layer=3, frame_rate=1600.0, weights_sha256=self.weights_sha256)
        return same | dict(encoder="tens", encoder_folder="some/folder")

    def encode(self, clips, head=None):
        self.batches.append(len(clips))
        features = [self.scale * clip[: len(clip) // 10 * 10].reshape(-1, 10) for clip in clips]
        return features if head is None else [np.asarray(head(clip)) for clip in features]


@pytest.fixture
def folder_encoder(monkeypatch, tmp_path_factory):
    """`load_encoder("some/folder")` gives what is put into the list."""
    monkeypatch.chdir(tmp_path_factory.mktemp("models"))
    for name in ("some/folder", "f"):
        Path(name).mkdir(parents=True)
    encoders = [Encoder()]
    monkeypatch.setattr(inventory_module, "load_encoder", lambda name, layer, dtype, crop: encoders[-1])
    return encoders


def linear(k=7, dim=10, seed=0):
    rng = np.random.default_rng(seed)
    shapes = (8, dim), (8,), (6, 8), (6,), (k, 6), (k,)
    return LinearQuantizer(*(rng.normal(size=shape) for shape in shapes))


def ragged(n=9):
    rng = np.random.default_rng(1)
    return [rng.normal(size=length).astype(np.float32) for length in rng.integers(10, 9000, n)]


def test_a_batch_and_single_clips_give_the_same_units(inventory):
    batch = [clip[: 4000 + 1700 * i] for i, clip in enumerate(clips())]
    assert inventory.encode_batch(batch) == [inventory.encode(clip) for clip in batch]
    assert inventory.encode_batch([]) == []


@pytest.mark.parametrize("quantizer", ["centroids", "linear"])
def test_an_encoder_with_batches_is_given_them(folder_encoder, quantizer):
    folder_encoder.append(Encoder())
    centroids = np.random.default_rng(0).normal(size=(7, 10)).astype(np.float32)
    given = dict(centroids=centroids) if quantizer == "centroids" else dict(centroids=None, linear=linear())
    inventory = UnitInventory("tens", 3, 1600.0, size=7, weights_sha256="weights1.0", encoder_folder="f", **given)
    batched = inventory.encode_batch(ragged())
    assert folder_encoder[-1].batches == [9]
    assert batched == [inventory.encode(clip) for clip in ragged()]
    assert len({id for units in batched for id in units.ids.tolist()}) > 2


def test_weights_are_in_the_hash_and_the_folder_is_not(folder_encoder, tmp_path):
    inventory = learn_inventory(folder_encoder[0], ragged(), k=5, seed=0)
    assert (inventory.name, inventory.encoder_folder) == ("tens-l3-k5", "some/folder")
    assert inventory.weights_sha256 == "weights1.0"
    assert inventory != dataclasses.replace(inventory, weights_sha256="")
    assert inventory == dataclasses.replace(inventory, encoder_folder="moved/folder")
    inventory.save(tmp_path)
    loaded = UnitInventory.load(tmp_path)
    assert loaded == inventory and loaded.encoder_folder == "some/folder"
    dataclasses.replace(inventory, encoder_folder="moved/folder").save(tmp_path)
    assert UnitInventory.load(tmp_path).encoder_folder == "moved/folder"
    folder_encoder.append(Encoder(2.0))
    with pytest.raises(ValueError, match="some/folder has weights of SHA-256 weights2.0, but tens-l3-k5 was made with"):
        loaded.encode(ragged()[0])


def test_a_linear_quantizer_in_place_of_centroids(folder_encoder, tmp_path):
    options = dict(weights_sha256="weights1.0", encoder_folder="f")
    inventory = UnitInventory("tens", 11, 1600.0, None, 7, linear=linear(), **options)
    assert inventory != dataclasses.replace(inventory, linear=linear(seed=1))
    clip = ragged()[0]
    (ids,) = Encoder().encode([clip], linear().head)
    assert np.array_equal(inventory.encode(clip).expand(), linear().without_blanks(ids))
    inventory.save(tmp_path)
    loaded = UnitInventory.load(tmp_path)
    assert loaded == inventory and loaded.encode(clip) == inventory.encode(clip)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inventory.json", "linear.safetensors"]
    linear(seed=1).save(tmp_path / "linear.safetensors")
    with pytest.raises(ValueError, match="inventory.json: the inventory was changed after it was saved"):
        UnitInventory.load(tmp_path)
    (tmp_path / "linear.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="inventory.json: not a usable unit inventory .*linear.safetensors"):
        UnitInventory.load(tmp_path)
    with pytest.raises(ValueError, match="a linear quantizer of 7 classes for 8 units"):
        UnitInventory("tens", 11, 1600.0, None, 8, linear=linear())
    with pytest.raises(ValueError, match="needs centroids or a linear quantizer"):
        UnitInventory("tens", 11, 1600.0, np.zeros((7, 10)), 7, linear=linear())


def test_a_changed_or_broken_folder_is_refused(inventory, tmp_path):
    inventory.save(tmp_path)
    np.save(tmp_path / "centroids.npy", inventory.centroids[::-1])
    with pytest.raises(ValueError, match="inventory.json: the inventory was changed after it was saved"):
        UnitInventory.load(tmp_path)
    np.save(tmp_path / "centroids.npy", np.array([{"code": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="not a usable unit inventory .*copy the folder again"):
        UnitInventory.load(tmp_path)
    inventory.save(tmp_path)
    record = json.loads((tmp_path / "inventory.json").read_text())
    for broken in ({**record, "layer": 3}, {**record, "version": 99}, {"version": 1}, [], {**record, "foreign": 1}):
        (tmp_path / "inventory.json").write_text(json.dumps(broken))
        with pytest.raises(ValueError, match="inventory.json"):
            UnitInventory.load(tmp_path)
    with pytest.raises(ValueError, match="not a usable unit inventory"):
        UnitInventory.load(tmp_path / "nowhere")


def test_precomputed_units_have_a_name_and_a_hash_but_no_encoder(tmp_path):
    inventory = UnitInventory("precomputed:mhubert-base-25hz", 11, 25.0, None, 500)
    assert inventory.name == "precomputed:mhubert-base-25hz-l11-k500"
    assert inventory != dataclasses.replace(inventory, source_sha256="03cc04a9")
    with pytest.raises(ValueError, match="come with the manifest .* choose another units.encoder"):
        inventory.encode(clips()[0])
    inventory.save(tmp_path)
    assert UnitInventory.load(tmp_path) == inventory
    with pytest.raises(ValueError, match="needs centroids"):
        UnitInventory("mfcc", 0, 50.0, None, 500)


def test_too_little_speech_is_refused():
    with pytest.raises(ValueError, match="49 frames of speech are too few for 100 units; .*lower units.clusters"):
        learn_inventory(load_encoder("mfcc"), clips(1), k=100, seed=0)
    with pytest.raises(ValueError, match="0 frames of speech"):
        learn_inventory(load_encoder("mfcc"), [], k=2, seed=0)


def test_encoders_are_found_by_name():
    encoder = load_encoder("mfcc")
    assert (encoder.name, encoder.frame_rate, encoder.dim) == ("mfcc", 50.0, 39)
    assert encoder.encode(clips()[:1])[0].shape == (49, 39)
    with pytest.raises(ValueError, match="units.encoder='hubbert' is not known; choose mfcc"):
        load_encoder("hubbert")
    for options in ((6,), (None, "bfloat16"), (0, "float32", True)):
        with pytest.raises(ValueError, match="the mfcc encoder has no layers and no options; leave them out"):
            load_encoder("mfcc", *options)
