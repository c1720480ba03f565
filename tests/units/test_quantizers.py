import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxslm.units.kmeans import label_by_chunks
from jaxslm.units.quantizers import LinearQuantizer, read_quantizer


def weights(dim=24, k=11, seed=0):
    rng = np.random.default_rng(seed)
    sizes = [(20, dim), (15, 20), (k, 15)]
    return {
        f"{2 * i}.{kind}": rng.normal(size=size if kind == "weight" else size[:1], scale=0.5).astype(np.float32)
        for i, size in enumerate(sizes)
        for kind in ("weight", "bias")
    }


def quantizer(**kwargs):
    return LinearQuantizer(*weights(**kwargs).values())


def label(found, features):
    return found.without_blanks(label_by_chunks(features, found.head))


def spirit_lm(features, tensors):
    """The published computation, on torch: classes, then blanks replaced from the left one step at a time."""
    torch = pytest.importorskip("torch")
    layers = []
    for name in ("0", "2", "4"):
        out, into = tensors[f"{name}.weight"].shape
        layers += [torch.nn.Linear(into, out), torch.nn.LeakyReLU()]
    model = torch.nn.Sequential(*layers[:-1])
    model.load_state_dict({name: torch.from_numpy(array) for name, array in tensors.items()})
    with torch.no_grad():
        ids = model(torch.from_numpy(features)).argmax(dim=-1)
    raw, blank = ids.numpy().copy(), len(tensors["4.bias"]) - 1
    if (raw == blank).all():
        return raw, raw
    while (ids == blank).any():
        ids[ids == blank] = torch.roll(ids, 1)[ids == blank]
    return raw, ids.numpy()


@pytest.mark.parametrize("n", [1, 7, 511, 512, 1300])
def test_units_are_those_of_the_published_computation(n):
    features = np.random.default_rng(n).normal(size=(n, 24)).astype(np.float32)
    _, expected = spirit_lm(features, weights())
    ids = label(quantizer(), features)
    assert ids.dtype == np.int32 and np.array_equal(ids, expected)


def test_blanks_take_the_class_to_their_left_and_wrap_around():
    tensors = weights()
    tensors["4.bias"][-1] += 5  # many blanks
    features = np.random.default_rng(1).normal(size=(400, 24)).astype(np.float32)
    features = features[np.argmax(spirit_lm(features, tensors)[0] == 10) :]
    raw, expected = spirit_lm(features, tensors)
    assert raw[0] == 10 and 0.2 < np.mean(raw == 10) < 0.9
    ids = label(LinearQuantizer(*tensors.values()), features)
    assert np.array_equal(ids, expected) and ids[0] == ids[-1]
    tensors["4.bias"][-1] += 1000
    assert set(label(LinearQuantizer(*tensors.values()), features)) == {10}  # nothing but blanks: they stay


def test_a_saved_quantizer_is_read_back_with_or_without_a_prefix(tmp_path):
    quantizer().save(tmp_path / "a.safetensors")
    save_file({f"model.encoder.{k}": v for k, v in weights().items()}, tmp_path / "b.safetensors")
    for name in ("a", "b"):
        found = read_quantizer(tmp_path / f"{name}.safetensors")
        assert found.sha256 == quantizer().sha256 and (found.size, found.dim) == (11, 24)
    assert quantizer(seed=1).sha256 != quantizer().sha256


def test_centroids_are_read_from_each_form(tmp_path):
    joblib, cluster = pytest.importorskip("joblib"), pytest.importorskip("sklearn.cluster")
    fitted = cluster.KMeans(4, n_init=1).fit(np.random.default_rng(0).normal(size=(50, 3)))
    centroids = fitted.cluster_centers_.astype(np.float32)
    joblib.dump(fitted, tmp_path / "km.bin")
    np.save(tmp_path / "km.npy", fitted.cluster_centers_)
    save_file({"cluster_centers": centroids, "n_clusters": np.array([4])}, tmp_path / "km.safetensors")
    for name in ("km.bin", "km.npy", "km.safetensors"):
        found = read_quantizer(tmp_path / name)
        assert found.dtype == np.float32 and np.array_equal(found, centroids)


def test_other_files_are_refused_by_name(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"cluster_centers": torch.zeros(3, 2)}, tmp_path / "km.pt")
    with pytest.raises(ValueError, match="km.pt is a torch or .npz archive.* Save its tensors as safetensors"):
        read_quantizer(tmp_path / "km.pt")
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="objects.npy is truncated or holds no plain numbers"):
        read_quantizer(tmp_path / "objects.npy")
    for bad in (np.zeros(3), np.full((2, 2), np.nan), np.array([["a", "b"]])):
        np.save(tmp_path / "bad.npy", bad)
        with pytest.raises(ValueError, match="bad.npy holds an array of shape .* give finite centroids, one a row"):
            read_quantizer(tmp_path / "bad.npy")
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00")
    with pytest.raises(ValueError, match="cut.safetensors is no whole safetensors file"):
        read_quantizer(tmp_path / "cut.safetensors")
    save_file({"other": np.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="has the tensors other; give one of centroids"):
        read_quantizer(tmp_path / "other.safetensors")
    save_file(weights() | {"2.bias": np.zeros(3, np.float32)}, tmp_path / "misfit.safetensors")
    with pytest.raises(ValueError, match="misfit.safetensors: .* does not fit together; convert the quantizer again"):
        read_quantizer(tmp_path / "misfit.safetensors")
    with pytest.raises(ValueError, match="no file .*nowhere.npy"):
        read_quantizer(tmp_path / "nowhere.npy")
