"""EnCodec and Mimi against transformers, with seeded random weights: codes, samples, spellings, export."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxslm.hf.codec import load_codec, save_codec
from tests.codec.chunks import in_chunks

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

FILE = "model.safetensors"
SEANET = dict(num_filters=4, upsampling_ratios=[3, 2], hidden_size=8, codebook_size=16)
ENCODEC = dict(SEANET, codebook_dim=8, sampling_rate=60, target_bandwidths=[0.04, 0.16])
MIMI = dict(
    SEANET,
    sampling_rate=120,
    vector_quantization_hidden_dimension=4,
    codebook_dim=4,
    num_quantizers=3,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=2,
    intermediate_size=12,
    upsample_groups=8,
    sliding_window=5,
)
SETTINGS = {
    "encodec": ENCODEC,
    "encodec not causal": ENCODEC
    | dict(use_causal_conv=False, num_residual_layers=2, dilation_growth_rate=3, use_conv_shortcut=False, compress=1),
    "encodec trimmed": ENCODEC | dict(trim_right_ratio=0.4, pad_mode="constant", num_lstm_layers=1),
    "mimi": MIMI,
    "mimi joining three": MIMI
    | dict(
        frame_rate=20 / 3 - 1e-6,
        vector_quantization_hidden_dimension=8,
        codebook_dim=8,
        num_semantic_quantizers=2,
        pad_mode="replicate",
        rope_parameters=dict(rope_type="default", rope_theta=100.0),
    ),
    "mimi not causal": MIMI | dict(use_causal_conv=False, num_hidden_layers=1),
}


def make_peer(kind: str):
    """The model, with weights that keep the scale of what passes."""
    family = "Mimi" if kind.startswith("mimi") else "Encodec"
    config = getattr(transformers, f"{family}Config")(**SETTINGS[kind])
    peer = getattr(transformers, f"{family}Model")(config).eval()
    generator = torch.Generator().manual_seed(0)
    for name, tensor in peer.state_dict().items():
        noise = torch.randn(tensor.shape, generator=generator)
        if name.endswith("original0"):
            tensor.copy_(0.5 + noise.abs())
        elif name.endswith(("layer_scale.scale", "cluster_usage", "layernorm.weight")):
            tensor.copy_(0.2 + noise.abs())
        elif name.endswith("embed_sum"):
            tensor.copy_(noise)
        elif tensor.ndim > 1:
            tensor.copy_(noise / tensor[0].numel() ** 0.5)
        elif "bias" in name:
            tensor.copy_(noise / 10)
    return peer


def peer_codes(peer, samples_BxN) -> np.ndarray:
    """[B, T, Q], of all levels."""
    bandwidth = {"bandwidth": peer.config.target_bandwidths[-1]} if peer.config.model_type == "encodec" else {}
    with torch.inference_mode():
        codes = peer.encode(torch.tensor(np.array(samples_BxN))[:, None], **bandwidth).audio_codes
    return codes.reshape(-1, *codes.shape[-2:]).permute(0, 2, 1).numpy()


def peer_samples(peer, codes_BxTxQ) -> np.ndarray:
    codes = torch.tensor(np.array(codes_BxTxQ)).permute(0, 2, 1).long()
    with torch.inference_mode():
        decoded = peer.decode(codes[None], [None]) if peer.config.model_type == "encodec" else peer.decode(codes)
    return decoded.audio_values[:, 0].numpy()


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


encode = jax.jit(lambda codec, samples, n_samples: codec.encode(samples, n_samples))
decode = jax.jit(lambda codec, codes, n_frames: codec.decode(codes, n_frames))


@pytest.fixture(scope="module", params=SETTINGS)
def pair(request, tmp_path_factory):
    """(peer, its folder, ours read from there)."""
    peer = make_peer(request.param)
    folder = tmp_path_factory.mktemp("peer") / "model"
    peer.save_pretrained(folder)
    return peer, folder, load_codec(folder)


def test_codes_and_samples_of_each_clip_of_a_batch_are_those_of_transformers(pair):
    peer, _, codec = pair
    hop = codec.hop
    # From one sample on: reflection has a rule of its own for clips shorter than what is reflected.
    lengths = np.array([8 * hop, 1, 2, 3, hop - 1, hop, hop + 1, 2 * hop + 1, 4 * hop, 7 * hop - 2])
    x = noise(len(lengths), 8 * hop)
    codes = encode(codec, jnp.asarray(x), jnp.asarray(lengths))
    n_frames = codec.n_frames(lengths)
    samples = decode(codec, codes, jnp.asarray(n_frames))
    assert len(np.unique(codes)) > 8
    for i, (n, frames) in enumerate(zip(lengths, n_frames, strict=True)):
        expected = peer_codes(peer, x[i : i + 1, :n])
        np.testing.assert_array_equal(codes[i : i + 1, :frames], expected, err_msg=f"{n} samples")
        alone = peer_samples(peer, expected)[0]
        assert len(alone) == frames * hop and np.abs(alone).max() > 0.1
        np.testing.assert_allclose(samples[i, : frames * hop], alone, atol=1e-4)
        assert not np.any(samples[i, frames * hop :])


def test_transformers_loads_what_is_written_and_computes_the_same(pair, tmp_path):
    peer, _, codec = pair
    if peer.config.model_type == "mimi" and not peer.config.use_causal_conv:
        with pytest.raises(ValueError, match="encoder.causal=False cannot be written: Mimi"):
            save_codec(codec, tmp_path / "ours")
        return
    save_codec(codec, tmp_path / "ours")
    again, info = type(peer).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(info.values())
    x = noise(2, 5 * codec.hop, seed=1)
    codes = peer_codes(peer, x)
    np.testing.assert_array_equal(peer_codes(again.eval(), x), codes)
    np.testing.assert_allclose(peer_samples(again, codes), peer_samples(peer, codes), atol=1e-4)
    if peer.config.model_type == "encodec":
        widths = again.config.target_bandwidths
        assert [min(again.quantizer.get_num_quantizers_for_bandwidth(w), 4) for w in widths] == [1, 2, 3, 4][
            : len(widths)
        ]
        assert len(widths) == codec.n_codebooks
    back = load_codec(tmp_path / "ours")
    assert back.config.parts == codec.config.parts and back.config.sample_rate == codec.config.sample_rate
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), back, codec)


def test_all_spellings_of_weight_norm_are_read(pair, tmp_path):
    _, folder, codec = pair
    plain = {}
    for name, value in load_file(folder / FILE).items():
        if name.endswith("original0"):
            continue
        if name.endswith("original1"):
            kernel = name.removesuffix(".parametrizations.weight.original1")
            size = load_file(folder / FILE)[f"{kernel}.parametrizations.weight.original0"]
            value = torch._weight_norm(torch.tensor(value), torch.tensor(size), 0).numpy()
            name = f"{kernel}.weight"
        plain[name] = value
    kernels = [name.removesuffix(".weight") for name in plain if name.endswith(".conv.weight")]
    assert len(kernels) > 10
    for size_name, direction_name in (
        (None, None),
        ("{}.weight_g", "{}.weight_v"),
        ("{}.parametrizations.weight.original0", "{}.parametrizations.weight.original1"),
    ):
        tensors = dict(plain)
        for kernel in kernels if size_name else ():
            weight = tensors.pop(f"{kernel}.weight")
            tensors[size_name.format(kernel)] = np.sqrt(np.square(weight).sum((1, 2), keepdims=True))
            tensors[direction_name.format(kernel)] = 3 * weight
        (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
        save_file(tensors, tmp_path / FILE)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), load_codec(tmp_path), codec)


def test_chunks_of_a_causal_codec_give_what_transformers_makes_of_the_whole(pair):
    peer, _, codec = pair
    if not peer.config.use_causal_conv or peer.config.trim_right_ratio < 1:
        with pytest.raises(ValueError, match="runs on chunks|run on chunks"):
            codec.decoder.start(1)
        return
    x = noise(1, 8 * codec.hop, seed=2)
    sizes = np.array([7, 1])  # the first of more frames than a kernel reflects
    expected = peer_codes(peer, x)
    codes = codec.quantizer.encode(in_chunks(codec.encoder, jnp.asarray(x)[..., None], sizes * codec.hop))
    np.testing.assert_array_equal(codes, expected)
    samples = in_chunks(codec.decoder, codec.quantizer.decode(codes), sizes)[..., 0]
    np.testing.assert_allclose(samples, peer_samples(peer, expected), atol=1e-4)
