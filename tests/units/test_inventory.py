import dataclasses
import json

import numpy as np
import pytest

from jaxslm.audio.mfcc import mfcc_39
from jaxslm.units.encoders import load_encoder
from jaxslm.units.inventory import UnitInventory, learn_inventory


def clips(n=6, seconds=1.0):
    rng = np.random.default_rng(0)
    time = np.arange(int(16000 * seconds)) / 16000
    return [
        (0.3 * np.sin(2 * np.pi * (200 + 100 * i) * time * (1 + time)) + 0.01 * rng.normal(size=len(time))).astype("f4")
        for i in range(n)
    ]


@pytest.fixture(scope="module")
def inventory():
    return learn_inventory("mfcc", iter(clips()), k=16, seed=0)


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
    learnt = learn_inventory("mfcc", marked, k=4, seed=0, max_frames=300)
    everything = np.concatenate([mfcc_39(clip) for clip in marked])
    spread = everything[:, 0].std() / np.sqrt(300)
    assert abs(learnt.mean[0] - everything[:, 0].mean()) < 4 * spread
    assert learnt == learn_inventory("mfcc", marked, k=4, seed=0, max_frames=300)
    assert learnt != learn_inventory("mfcc", marked, k=4, seed=1, max_frames=300)


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
        learn_inventory("mfcc", clips(1), k=100, seed=0)
    with pytest.raises(ValueError, match="0 frames of speech"):
        learn_inventory("mfcc", [], k=2, seed=0)


def test_encoders_are_found_by_name():
    encoder = load_encoder("mfcc")
    assert (encoder.name, encoder.frame_rate, encoder.dim) == ("mfcc", 50.0, 39)
    assert encoder(clips()[0]).shape == (49, 39)
    with pytest.raises(ValueError, match="units.encoder='hubbert' is not known; choose mfcc"):
        load_encoder("hubbert")
    with pytest.raises(ValueError, match="units.layer=6, but the mfcc encoder has no layers"):
        load_encoder("mfcc", 6)
