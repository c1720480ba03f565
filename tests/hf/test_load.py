"""Hugging Face folders into the decoder: logits against transformers, and what is refused."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from scipy.special import log_softmax

from jaxslm.hf.load import load_decoder, open_source
from jaxslm.models.decoder import Decoder, DecoderConfig
from tests.hf.families import FAMILIES, write_random
from tests.hf.smollm2 import write_smollm2

TEXT, SIZE, PADDED = 300, 340, 384


def load(folder, *, text_size=TEXT, size=SIZE, padded=PADDED, new_rows="mean_noise"):
    source = open_source(folder)
    model = Decoder(DecoderConfig(vocab_size=padded, **source.fields), jax.random.key(0))
    return load_decoder(source, model, text_size=text_size, size=size, new_rows=new_rows, key=jax.random.key(1))


def logits_of(model, ids_BxT):
    positions = jnp.broadcast_to(jnp.arange(ids_BxT.shape[1]), ids_BxT.shape)
    hidden = model(jnp.asarray(ids_BxT), positions_BxT=positions, segment_ids_BxT=jnp.ones_like(positions))
    return np.asarray(model.logits(hidden))


def their_logits(model, ids_BxT):
    torch = pytest.importorskip("torch")
    with torch.inference_mode():
        return model(torch.tensor(ids_BxT)).logits.numpy()


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_equal_transformers(family, tmp_path):
    theirs = write_random(family, tmp_path, max_shard_size="50KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 3  # an index is read
    model = load(tmp_path)
    ids = np.random.default_rng(0).integers(0, TEXT, (2, 200))
    np.testing.assert_allclose(logits_of(model, ids)[..., :TEXT], their_logits(theirs, ids), atol=1e-4)


def test_config_of_transformers_4(tmp_path):
    """rope_theta and rope_scaling at the top, as version 4 wrote them."""
    theirs = write_random("llama3.2", tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters")
    config |= {"rope_theta": rope.pop("rope_theta"), "rope_scaling": rope}
    path.write_text(json.dumps(config))
    ids = np.random.default_rng(0).integers(0, TEXT, (1, 150))
    np.testing.assert_allclose(logits_of(load(tmp_path), ids)[..., :TEXT], their_logits(theirs, ids), atol=1e-4)


def test_interleaved_rotary_of_original_files(tmp_path):
    """The same weights under the names, and with the order of rotary pairs, of Meta's files."""
    theirs = write_random("llama2", tmp_path / "hf")
    state, heads = load_file(tmp_path / "hf" / "model.safetensors"), {"q": 4, "k": 2}
    folder = tmp_path / "original"
    folder.mkdir()
    renamed = {}
    for name, value in state.items():
        parts = name.replace("model.", "", 1).split(".")
        if parts[0] == "layers":
            leaf = parts[-2]
            if leaf in ("q_proj", "k_proj"):  # from (half, pair) to (pair, half)
                n = heads[leaf[0]]
                value = value.reshape(n, 2, 8, -1).swapaxes(1, 2).reshape(value.shape)
            new = {"input_layernorm": "attention_norm", "post_attention_layernorm": "ffn_norm"}.get(leaf)
            new = new or {"q": "attention.wq", "k": "attention.wk", "v": "attention.wv", "o": "attention.wo"}.get(
                leaf[0]
            )
            new = {"gate_proj": "feed_forward.w1", "up_proj": "feed_forward.w3", "down_proj": "feed_forward.w2"}.get(
                leaf, new
            )
            renamed[f"layers.{parts[1]}.{new}.weight"] = np.ascontiguousarray(value)
        else:
            renamed[{"embed_tokens": "tok_embeddings", "norm": "norm", "lm_head": "output"}[parts[0]] + ".weight"] = (
                value
            )
    save_file(renamed, folder / "consolidated.safetensors")
    params = dict(dim=64, n_layers=3, n_heads=4, n_kv_heads=2, hidden_dim=96, head_dim=16, norm_eps=1e-5)
    params |= dict(vocab_size=300, rope_theta=1e4)
    (folder / "params.json").write_text(json.dumps(params))
    ids = np.random.default_rng(0).integers(0, TEXT, (1, 100))
    np.testing.assert_allclose(logits_of(load(folder), ids)[..., :TEXT], their_logits(theirs, ids), atol=1e-4)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("new_rows", ["mean", "mean_noise", "random"])
def test_new_rows(tied, new_rows, tmp_path):
    write_random("llama3.2" if tied else "llama2", tmp_path)
    model, state = load(tmp_path, new_rows=new_rows), load_file(tmp_path / "model.safetensors")
    tables = {"model.embed_tokens.weight": model.embedding.weight[...]}
    if not tied:
        tables["lm_head.weight"] = model.head.weight[...].T
    for name, table in tables.items():
        old, new = np.asarray(table[:TEXT]), np.asarray(table[TEXT:SIZE])
        np.testing.assert_array_equal(old, state[name])
        mean = state[name].astype(np.float64).mean(axis=0)
        if new_rows == "mean":
            np.testing.assert_allclose(new, np.tile(mean, (SIZE - TEXT, 1)), atol=1e-6)
        elif new_rows == "mean_noise":  # around the mean, with 1e-5 of the variance
            np.testing.assert_allclose(new, np.tile(mean, (SIZE - TEXT, 1)), atol=6 * np.sqrt(1e-5) * old.std())
            assert 0.8 < (new - mean).std() / (np.sqrt(1e-5) * (old - mean).std()) < 1.2
        else:
            assert 0.015 < new.std() < 0.025 and len(np.unique(new[:, 0])) == SIZE - TEXT


def test_twist_keeps_the_body_and_drops_the_text_rows(tmp_path):
    write_random("qwen2.5", tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    model = load(tmp_path, text_size=0, size=105, padded=128, new_rows="random")
    fresh = Decoder(model.config, jax.random.key(0))
    np.testing.assert_array_equal(model.embedding.weight[...], fresh.embedding.weight[...])
    query = state["model.layers.2.self_attn.q_proj.weight"].T
    np.testing.assert_array_equal(model.layers.attention.query.weight[...][2], query)
    mean = load(tmp_path, text_size=0, size=105, padded=128, new_rows="mean")
    expected = state["model.embed_tokens.weight"].mean(axis=0)
    np.testing.assert_allclose(mean.embedding.weight[...][50], expected, atol=1e-6)


def test_each_device_reads_its_own_bytes(tmp_path):
    """On 8 devices in 2 x 2 x 2 shards: the same weights, and no byte of a matrix read twice for one copy."""
    write_random("qwen2", tmp_path)
    script = f"""
import jax, numpy as np, pathlib
from jaxslm.hf import load, tensors
from jaxslm.models.decoder import Decoder, DecoderConfig
from jaxslm.sharding import make_partitioner
read = []
original = tensors.TensorFolder.read
tensors.TensorFolder.read = lambda self, name, index: read.append((name, original(self, name, index))) or read[-1][1]
source = load.open_source(pathlib.Path({str(tmp_path)!r}))
config = DecoderConfig(vocab_size=384, **source.fields)
def loaded(mesh, devices):
    partitioner = make_partitioner(mesh, devices)
    shapes = jax.eval_shape(lambda: Decoder(config, jax.random.key(0)))
    model = jax.jit(lambda: Decoder(config, jax.random.key(0)), out_shardings=partitioner.shardings(shapes))()
    return load.load_decoder(source, model, text_size=300, size=340, new_rows="mean", key=jax.random.key(1))
one = loaded(dict(data=1), jax.devices()[:1])
read.clear()
eight = loaded(dict(data=1, fsdp=2, tensor=4), jax.devices())
for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(eight)):
    np.testing.assert_allclose(a, b, atol=1e-7)
parts = [x for name, x in read if name == "model.layers.1.mlp.gate_proj.weight"]
assert len(parts) == 8 and all(x.size == 64 * 96 // 8 for x in parts), [x.shape for x in parts]
"""
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=8"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    result = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]


def change(folder, **new):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | new))


def edit_tensors(folder, edit):
    state = load_file(folder / "model.safetensors")
    edit(state)
    save_file(state, folder / "model.safetensors")


def truncate(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def garble(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:8] + b"\xff" * 64 + path.read_bytes()[72:])


def only_pickles(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")


def absent_file(folder):
    index = {"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def escaping_index(folder):
    index = {"weight_map": {"model.norm.weight": "../elsewhere.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def not_finite(state):
    state["model.layers.1.mlp.up_proj.weight"][3, 4] = np.nan


BROKEN = {
    "pickles": (only_pickles, "pickled weights only .pytorch_model.bin.*save_pretrained"),
    "architecture": (lambda f: change(f, model_type="mamba"), "model_type 'mamba' is not one of llama"),
    "activation": (lambda f: change(f, hidden_act="relu"), "hidden_act='relu'"),
    "mlp bias": (lambda f: change(f, mlp_bias=True), "mlp_bias=True is not supported"),
    "rope": (lambda f: change(f, rope_parameters=dict(rope_type="yarn", rope_theta=1e4)), "rotary scaling .*yarn"),
    "two ropes": (lambda f: change(f, rope_scaling=dict(rope_type="linear", factor=4.0)), "disagree in rope_type"),
    "ropes by layer": (
        lambda f: change(f, rope_parameters=dict(full_attention=dict(rope_theta=1e6))),
        "no single set of rotary parameters",
    ),
    "sizes": (lambda f: change(f, num_attention_heads=0), "num_attention_heads=0 is not a positive whole number"),
    "text for a size": (lambda f: change(f, hidden_size="64"), "hidden_size='64' is not a positive whole number"),
    "another head": (
        lambda f: change(f, tie_word_embeddings=True),
        "lm_head.weight is not model.embed_tokens.weight, though",
    ),
    "config": (lambda f: (f / "config.json").write_text("{"), "config.json is no JSON object"),
    "truncated": (truncate, "model.safetensors is truncated or damaged"),
    "garbled": (garble, "model.safetensors is truncated or damaged"),
    "absent": (absent_file, "names model-00001-of-00002.safetensors, which is not there"),
    "escape": (escaping_index, "'../elsewhere.safetensors', which is not a file of its folder"),
    "index": (
        lambda f: (f / "model.safetensors.index.json").write_text('{"weight_map": {"a": 5}}'),
        "index.json is damaged",
    ),
    "missing": (lambda f: edit_tensors(f, lambda s: s.pop("model.norm.weight")), "lacks model.norm.weight"),
    "unexpected": (
        lambda f: edit_tensors(f, lambda s: s.update(extra=np.zeros(3, np.float32))),
        "has extra, which a llama model",
    ),
    "misshapen": (
        lambda f: edit_tensors(f, lambda s: s.update({"model.norm.weight": np.zeros(3, np.float32)})),
        r"model.norm.weight is \[3\] and \[64\] was expected",
    ),
    "rows": (lambda f: change(f, vocab_size=310), r"embed_tokens.weight is \[300, 64\] and \[310, 64\] was expected"),
    "nan": (lambda f: edit_tensors(f, not_finite), "model.layers.1.mlp.up_proj.weight has values that are not finite"),
    "quantised": (
        lambda f: edit_tensors(f, lambda s: s.update({"model.norm.weight": np.zeros(64, np.int8)})),
        "model.norm.weight is stored as I8",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_broken_is_named(kind, tmp_path):
    write_random("llama2", tmp_path)
    damage, message = BROKEN[kind]
    damage(tmp_path)
    with pytest.raises(ValueError, match=message):
        load(tmp_path)


def test_types_that_differ_by_layer(tmp_path):
    write_random("llama2", tmp_path)
    name = "model.layers.{}.mlp.up_proj.weight"
    types = [np.float32, ml_dtypes.bfloat16, np.float16]

    def cast(state):
        state |= {name.format(i): state[name.format(i)].astype(dtype) for i, dtype in enumerate(types)}

    edit_tensors(tmp_path, cast)
    state = load_file(tmp_path / "model.safetensors")
    loaded = np.asarray(load(tmp_path).layers.feed_forward.up.weight[...])
    for i, dtype in enumerate(types):
        assert state[name.format(i)].dtype == dtype
        np.testing.assert_array_equal(loaded[i], state[name.format(i)].astype(np.float32).T)


def test_a_tokenizer_larger_than_the_embedding(tmp_path):
    write_random("llama2", tmp_path)
    with pytest.raises(ValueError, match="the tokenizer has 301 ids and .*embed_tokens.weight 300 rows"):
        load(tmp_path, text_size=301)


def test_smollm2(tmp_path_factory):
    """Real weights on real text: logits within 1e-4 of transformers, both in float32.

    Where transformers is itself further than a third of that from its float64 logits (processors round differently),
    three times that distance; log-probabilities always within 1e-4.
    """
    folder = write_smollm2(tmp_path_factory.getbasetemp() / "smollm2")
    import transformers

    text = "In the morning the children walked along the river and told each other stories about the old king."
    ids = np.array([transformers.AutoTokenizer.from_pretrained(folder).encode(text)])
    expected, exact = (
        their_logits(transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval(), ids)
        for dtype in ("float32", "float64")
    )
    model = load(folder, text_size=49_152, size=49_652, padded=49_664)
    ours = logits_of(model, ids)[..., :49_152]
    np.testing.assert_allclose(ours, expected, atol=max(1e-4, 3 * np.abs(expected - exact).max()), rtol=0)
    np.testing.assert_allclose(log_softmax(ours, -1), log_softmax(expected, -1), atol=1e-4)
