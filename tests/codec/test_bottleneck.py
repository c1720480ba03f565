import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxslm.codec.bottleneck import LSTM, TransformerConfig, WindowTransformer
from tests.codec.chunks import in_chunks

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

KEY = jax.random.key(0)
DIM, WINDOW = 8, 4


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def torch_lstm(lstm):
    """torch's, with its weights."""
    reference = torch.nn.LSTM(DIM, DIM, 2, bidirectional=lstm.backward is not None, batch_first=True)
    for suffix, layers in (("", lstm.forward), ("_reverse", lstm.backward or [])):
        for i, layer in enumerate(layers):
            layer.bias[...] = jnp.asarray(noise(4 * DIM, seed=i))
            for name, value in (("weight_ih", layer.input_weight), ("weight_hh", layer.state_weight)):
                getattr(reference, f"{name}_l{i}{suffix}").data = torch.tensor(np.array(value[...].T))
            getattr(reference, f"bias_ih_l{i}{suffix}").data = torch.tensor(np.array(layer.bias[...]) - 0.3)
            getattr(reference, f"bias_hh_l{i}{suffix}").data = torch.full((4 * DIM,), 0.3)
    return reference


@pytest.mark.parametrize("bidirectional", [False, True])
def test_an_lstm_and_its_gradients_are_those_of_torch(bidirectional):
    lstm = LSTM(DIM, 2, KEY, bidirectional=bidirectional)
    reference = torch_lstm(lstm)
    x, wanted = noise(2, 9, DIM), noise(2, 9, DIM * (1 + bidirectional), seed=1)

    def loss(lstm, x):
        y = lstm(x)
        return jnp.sum(y * wanted), y

    (_, y), (grad, d_x) = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(lstm, jnp.asarray(x))
    x_torch = torch.tensor(x, requires_grad=True)
    y_torch = reference(x_torch)[0] + (torch.cat([x_torch] * 2, dim=-1) if bidirectional else x_torch)
    (y_torch * torch.tensor(wanted)).sum().backward()
    np.testing.assert_allclose(y, y_torch.detach(), atol=1e-5)
    np.testing.assert_allclose(d_x, x_torch.grad, atol=1e-4)
    for suffix, layers in (("", grad.forward), ("_reverse", grad.backward or [])):
        for i, layer in enumerate(layers):
            of_input, of_state = (getattr(reference, f"weight_{n}_l{i}{suffix}").grad.T for n in ("ih", "hh"))
            np.testing.assert_allclose(layer.input_weight[...], of_input, atol=1e-4)
            np.testing.assert_allclose(layer.state_weight[...], of_state, atol=1e-4)
            np.testing.assert_allclose(layer.bias[...], getattr(reference, f"bias_ih_l{i}{suffix}").grad, atol=1e-4)


LAYERS = {
    "lstm": lambda: LSTM(DIM, 2, KEY),
    "bidirectional lstm": lambda: LSTM(DIM, 2, KEY, bidirectional=True),
    "transformer": lambda: WindowTransformer(
        TransformerConfig(n_layers=2, n_heads=2, d_ff=16, window=WINDOW, layer_scale=0.5), DIM, KEY
    ),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_each_row_of_a_batch_is_the_row_alone(kind):
    layer = LAYERS[kind]()
    lengths = np.array([11, 1, 5])
    x = noise(3, 11, DIM)
    for i, n in enumerate(lengths):
        x[i, n:] = np.nan
    y = jax.jit(lambda layer, x, n: layer(x, n))(layer, x, jnp.asarray(lengths))
    for i, n in enumerate(lengths):
        np.testing.assert_allclose(y[i, :n], layer(jnp.asarray(x[i : i + 1, :n]))[0], atol=1e-5)


@pytest.mark.parametrize("kind", ["lstm", "transformer"])
def test_chunks_are_the_whole(kind):
    layer = LAYERS[kind]()
    x = jnp.asarray(noise(2, 14, DIM))
    np.testing.assert_allclose(in_chunks(layer, x, [1, 1, 2, 6, 1, 3]), layer(x), atol=1e-5)


@pytest.mark.parametrize("length", [3, 2 * WINDOW, 2 * WINDOW + 1, 5 * WINDOW])
def test_a_transformer_is_that_of_transformers(length):
    from transformers import MimiConfig
    from transformers.models.mimi.modeling_mimi import MimiTransformerModel

    layer = LAYERS["transformer"]()
    config = MimiConfig(
        hidden_size=DIM,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=16,
        sliding_window=WINDOW,
        attn_implementation="eager",
    )
    reference = MimiTransformerModel(config).eval()
    names = {
        "query.weight": "self_attn.q_proj.weight",
        "key.weight": "self_attn.k_proj.weight",
        "value.weight": "self_attn.v_proj.weight",
        "output.weight": "self_attn.o_proj.weight",
        "up.weight": "mlp.fc1.weight",
        "down.weight": "mlp.fc2.weight",
        "attention_norm.scale": "input_layernorm.weight",
        "attention_norm.bias": "input_layernorm.bias",
        "feed_forward_norm.scale": "post_attention_layernorm.weight",
        "feed_forward_norm.bias": "post_attention_layernorm.bias",
        "attention_scale": "self_attn_layer_scale.scale",
        "feed_forward_scale": "mlp_layer_scale.scale",
    }
    for seed, (ours, theirs) in enumerate(names.items()):
        parameter = layer.layers
        for part in ours.split("."):
            parameter = getattr(parameter, part)
        if parameter.ndim == 2:
            parameter[...] = 1 + jnp.asarray(noise(*parameter.shape, seed=seed)) / 4
        for i in range(2):
            value = np.array(parameter[...][i].T)
            reference.layers[i].get_parameter(theirs).data = torch.tensor(value)
    assert len(list(reference.parameters())) == 2 * len(names)
    x = noise(2, length, DIM)
    with torch.no_grad():
        expected = reference(torch.tensor(x)).last_hidden_state
    np.testing.assert_allclose(layer(jnp.asarray(x)), expected, atol=2e-5)


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="bidirectional LSTM cannot run on chunks"):
        LSTM(DIM, 1, KEY, bidirectional=True).start(1)
    with pytest.raises(ValueError, match="transformer.window=0; set it to 1 or more"):
        TransformerConfig(window=0)
    with pytest.raises(ValueError, match="n_heads=3 does not cut dim=8"):
        WindowTransformer(TransformerConfig(n_heads=3), DIM, KEY)


@pytest.mark.parametrize("kind", LAYERS)
def test_layers_compute_in_the_dtype_of_their_input(kind):
    assert LAYERS[kind]()(jnp.zeros((1, 3, DIM), jnp.bfloat16)).dtype == jnp.bfloat16
