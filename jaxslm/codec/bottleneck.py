"""What codecs put where frames are fewest: recurrent layers and transformers with a window, as layers of a chain.

Legend: B batch, T frames, D features, H heads, C features of a head, W window, S keys, L layers,
I features that come in, G = 4 D gates.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from jaxslm.codec.conv import zero_beyond
from jaxslm.masking import mask_time
from jaxslm.nn.layers import LayerNorm, Linear
from jaxslm.nn.rope import frequencies, rotary_table, rotate


def _cell(gates_BxG: jax.Array, cells_BxD: jax.Array, real_B: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """(what it gives, its cells), both 0 where the frame is not real. Gates: input, forget, cell, output (as torch)."""
    i, f, g, o = jnp.split(gates_BxG.astype(jnp.float32), 4, axis=-1)
    cells = jax.nn.sigmoid(f) * cells_BxD + jax.nn.sigmoid(i) * jnp.tanh(g)
    given = jax.nn.sigmoid(o) * jnp.tanh(cells)
    return (given, cells) if real_B is None else tuple(jnp.where(real_B[:, None], x, 0) for x in (given, cells))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _recur(backwards: bool, weight_DxG, of_inputs_TxBxG, real_TxB, state) -> tuple[jax.Array, tuple]:
    """(what it gives [T, B, D], state), both float32. `weight` is that of what it gave before."""
    return _recur_forward(backwards, weight_DxG, of_inputs_TxBxG, real_TxB, state)[0]


def _recur_forward(backwards, weight_DxG, of_inputs_TxBxG, real_TxB, state):
    def step(state, this):
        of_input, real = this
        given, cells = state
        gates = of_input + given.astype(of_input.dtype) @ weight_DxG
        new = _cell(gates, cells, real)
        return new, (new[0], (given, cells, gates))

    state, (y_TxBxD, saved) = jax.lax.scan(step, state, (of_inputs_TxBxG, real_TxB), reverse=backwards)
    return (y_TxBxD, state), (weight_DxG, real_TxB, saved)


def _recur_backward(backwards, saved, d_out):
    weight_DxG, real_TxB, (given_TxBxD, cells_TxBxD, gates_TxBxG) = saved
    d_y_TxBxD, d_state = d_out

    def step(d_state, this):
        d_given, d_cells = d_state
        d_y, real, cells, gates = this
        d_gates, d_cells = jax.vjp(lambda gates, cells: _cell(gates, cells, real), gates, cells)[1](
            (d_given + d_y, d_cells)
        )
        return ((d_gates @ weight_DxG.T).astype(jnp.float32), d_cells), d_gates

    steps = d_y_TxBxD, real_TxB, cells_TxBxD, gates_TxBxG
    d_state, d_gates_TxBxG = jax.lax.scan(step, d_state, steps, reverse=not backwards)
    # One product behind the loop, where the gradient of a scan would add one up at each frame.
    d_weight = jnp.einsum("tbd,tbg->dg", given_TxBxD.astype(d_gates_TxBxG.dtype), d_gates_TxBxG)
    return d_weight, d_gates_TxBxG, None, d_state


_recur.defvjp(_recur_forward, _recur_backward)


class _Recurrent(nnx.Module):
    """One layer of an LSTM in one direction."""

    def __init__(self, d_in: int, dim: int, key: jax.Array):
        of_input, of_state = jax.random.split(key)
        bound = dim**-0.5

        def weight(n: int, key: jax.Array) -> nnx.Param:
            value = jax.random.uniform(key, (n, 4 * dim), jnp.float32, -bound, bound)
            return nnx.Param(value, logical_axes=(None, None))

        self.input_weight, self.state_weight = weight(d_in, of_input), weight(dim, of_state)
        self.bias = nnx.Param(jnp.zeros(4 * dim), logical_axes=(None,))

    def start(self, batch: int) -> tuple[jax.Array, jax.Array]:
        """What it has given and its cells, before the first frame."""
        zeros_BxD = jnp.zeros((batch, self.state_weight.shape[0]), jnp.float32)
        return zeros_BxD, zeros_BxD

    def run(self, x_BxTxI: jax.Array, state: tuple, real_BxT: jax.Array | None = None) -> tuple[jax.Array, tuple]:
        """(y_BxTxD in the dtype of `x`, state). With `real_BxT` from the last frame to the first, beginning anew after
        frames that are not real; the state is float32.
        """
        weight_IxG, weight_DxG, bias_G = (p[...].astype(x_BxTxI.dtype) for p in self._parameters())
        of_inputs_TxBxG = jnp.moveaxis(x_BxTxI, 1, 0) @ weight_IxG + bias_G
        backwards = real_BxT is not None
        y_TxBxD, state = _recur(backwards, weight_DxG, of_inputs_TxBxG, real_BxT.T if backwards else None, state)
        return jnp.moveaxis(y_TxBxD, 0, 1).astype(x_BxTxI.dtype), state

    def _parameters(self) -> tuple[nnx.Param, ...]:
        return self.input_weight, self.state_weight, self.bias


class LSTM(nnx.Module):
    """`x + y` of an LSTM of `dim` features (EnCodec, encodec/modules/lstm.py).

    bidirectional: each direction is `dim` wide, and what comes out is twice that: the two beside each other, with `x`
      added to both (SpeechTokenizer, modules/lstm.py). A row is read backwards from its own end.
    """

    def __init__(self, dim: int, n_layers: int, key: jax.Array, *, bidirectional: bool = False):
        d_ins = [dim] + [dim * (1 + bidirectional)] * (n_layers - 1)
        ahead, back = jax.random.split(key)
        keys = zip(d_ins, jax.random.split(ahead, n_layers), jax.random.split(back, n_layers), strict=True)
        pairs = [(_Recurrent(d, dim, a), _Recurrent(d, dim, b) if bidirectional else None) for d, a, b in keys]
        self.forward = nnx.List([pair[0] for pair in pairs])
        self.backward = nnx.List([pair[1] for pair in pairs]) if bidirectional else None

    def __call__(self, x_BxTxD: jax.Array, lengths_B: jax.Array | None = None) -> jax.Array:
        if self.backward is None:
            return self.stream(x_BxTxD, self.start(len(x_BxTxD)))[0]
        batch, length = x_BxTxD.shape[:2]
        real_BxT = jnp.ones((batch, length), bool) if lengths_B is None else mask_time(length, lengths_B)
        x_BxTxD = y = zero_beyond(x_BxTxD, lengths_B)
        for forward, backward in zip(self.forward, self.backward, strict=True):
            ahead, _ = forward.run(y, forward.start(batch))
            back, _ = backward.run(y, backward.start(batch), real_BxT)
            y = jnp.concatenate([ahead, back], axis=-1)
        return y + jnp.tile(x_BxTxD, 2)

    def length(self, lengths):
        return lengths

    def start(self, batch: int, dtype=jnp.float32) -> tuple:
        """Raises ValueError if bidirectional."""
        if self.backward is not None:
            raise ValueError("a bidirectional LSTM cannot run on chunks: it would need what comes later")
        return tuple(layer.start(batch) for layer in self.forward)

    def stream(self, x_BxTxD: jax.Array, state: tuple) -> tuple[jax.Array, tuple]:
        y, new = x_BxTxD, []
        for layer, its_state in zip(self.forward, state, strict=True):
            y, its_state = layer.run(y, its_state)
            new.append(its_state)
        return x_BxTxD + y, tuple(new)


@dataclass(frozen=True)
class TransformerConfig:
    """A causal transformer; the defaults are Mimi's.

    window: a frame sees itself and `window - 1` frames before it.
    layer_scale: what attention and feed-forward are multiplied by at first, a learnt factor a feature.
    """

    n_layers: int = 8
    n_heads: int = 8
    d_ff: int = 2048
    window: int = 250
    rope_theta: float = 10_000.0
    layer_scale: float = 0.01
    norm_eps: float = 1e-5

    def __post_init__(self):
        for name in ("n_layers", "n_heads", "d_ff", "window"):
            if getattr(self, name) < 1:
                raise ValueError(f"transformer.{name}={getattr(self, name)}; set it to 1 or more")


class _Keys(NamedTuple):
    """State of a stream: the last W - 1 keys and values of each layer, and how many frames there were in all."""

    keys_LxBxSxHxC: jax.Array
    values_LxBxSxHxC: jax.Array
    seen: jax.Array


class _Block(nnx.Module):
    """Attention and feed-forward, each behind a norm, scaled by feature and added to its input; no biases."""

    def __init__(self, config: TransformerConfig, dim: int, key: jax.Array):
        q, k, v, o, up, down = jax.random.split(key, 6)

        def linear(d_in: int, d_out: int, key: jax.Array, axes: tuple[str, str]) -> Linear:
            return Linear(d_in, d_out, key, axes=axes, std=d_in**-0.5)

        inwards = ("embed", "heads")
        self.query, self.key, self.value = (linear(dim, dim, key, inwards) for key in (q, k, v))
        self.output = linear(dim, dim, o, ("heads", "embed"))
        self.up = linear(dim, config.d_ff, up, ("embed", "ffn"))
        self.down = linear(config.d_ff, dim, down, ("ffn", "embed"))
        self.attention_norm, self.feed_forward_norm = (LayerNorm(dim, eps=config.norm_eps) for _ in range(2))
        scale = jnp.full(dim, config.layer_scale)
        self.attention_scale, self.feed_forward_scale = (nnx.Param(scale, logical_axes=(None,)) for _ in range(2))

    def __call__(self, x_BxTxD: jax.Array, attend) -> tuple[jax.Array, tuple]:
        """`attend(q, k, v)` of [B, T, D] each gives (context, what to keep)."""
        x = self.attention_norm(x_BxTxD)
        context_BxTxD, kept = attend(self.query(x), self.key(x), self.value(x))
        x_BxTxD = x_BxTxD + self.output(context_BxTxD) * self.attention_scale[...].astype(x.dtype)
        y = self.down(jax.nn.gelu(self.up(self.feed_forward_norm(x_BxTxD)), approximate=False))
        return x_BxTxD + y * self.feed_forward_scale[...].astype(x.dtype), kept


class WindowTransformer(nnx.Module):
    """Mimi's transformer (moshi/modules/transformer.py), with rotary positions as Hugging Face turns them.

    Its layers are one module with a leading layer axis, run by a scan.
    """

    def __init__(self, config: TransformerConfig, dim: int, key: jax.Array):
        if dim % (2 * config.n_heads):
            raise ValueError(f"transformer.n_heads={config.n_heads} does not cut dim={dim} into heads of even width")
        self.config, self.head_dim = config, dim // config.n_heads
        self.layers = jax.vmap(lambda key: _Block(config, dim, key))(jax.random.split(key, config.n_layers))

    def __call__(self, x_BxTxD: jax.Array, lengths_B: jax.Array | None = None) -> jax.Array:
        window = self.config.window
        table = self._table(jnp.arange(x_BxTxD.shape[1]))

        def attend(q, k, v):
            q, k, v = self._turned(q, k, v, table)
            attend = attend_window if q.shape[1] <= 2 * window else _attend_in_blocks
            return attend(q, k, v, window).reshape(x_BxTxD.shape), None

        layer = lambda x, block: block(x, attend)  # noqa: E731
        return jax.lax.scan(layer, zero_beyond(x_BxTxD, lengths_B), self.layers)[0]

    def length(self, lengths):
        return lengths

    def start(self, batch: int, dtype=jnp.float32) -> _Keys:
        shape = (self.config.n_layers, batch, self.config.window - 1, self.config.n_heads, self.head_dim)
        return _Keys(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype), jnp.int32(0))

    def stream(self, x_BxTxD: jax.Array, state: _Keys) -> tuple[jax.Array, _Keys]:
        n, kept = x_BxTxD.shape[1], self.config.window - 1
        table = self._table(state.seen + jnp.arange(n))
        filled_S = jnp.arange(kept + n) >= kept - state.seen

        def layer(x, this):
            block, old = this

            def attend(q, k, v):
                q, *new = self._turned(q, k, v, table)
                k, v = (jnp.concatenate(pair, axis=1) for pair in zip(old, new, strict=True))
                context = attend_window(q, k, v, self.config.window, filled_S[None])
                return context.reshape(x_BxTxD.shape), (k[:, n:], v[:, n:])

            return block(x, attend)

        caches = state.keys_LxBxSxHxC, state.values_LxBxSxHxC
        y_BxTxD, caches = jax.lax.scan(layer, x_BxTxD, (self.layers, caches))
        return y_BxTxD, _Keys(*caches, state.seen + n)

    def _table(self, positions_T: jax.Array) -> tuple[jax.Array, jax.Array]:
        return rotary_table(positions_T[None], frequencies(self.head_dim, self.config.rope_theta))

    def _turned(self, q, k, v, table) -> tuple[jax.Array, ...]:
        """By heads, queries and keys turned by their positions."""
        q, k, v = (x.reshape(*x.shape[:2], -1, self.head_dim) for x in (q, k, v))
        return rotate(q, table), rotate(k, table), v


def attend_window(q_BxTxHxC, k_BxSxHxC, v_BxSxHxC, window: int, filled_BxS: jax.Array | None = None) -> jax.Array:
    """Context [B, T, H, C]: the queries, of the last T of the S positions, see the `window` keys that end at their own
    position, and of these those that are `filled`.
    """
    n_queries, n_keys = q_BxTxHxC.shape[1], k_BxSxHxC.shape[1]
    distance_TxS = jnp.arange(n_keys - n_queries, n_keys)[:, None] - jnp.arange(n_keys)
    visible = (distance_TxS >= 0) & (distance_TxS < window)
    visible = visible[None] if filled_BxS is None else visible[None] & filled_BxS[:, None, :]
    return jax.nn.dot_product_attention(q_BxTxHxC, k_BxSxHxC, v_BxSxHxC, mask=visible[:, None])


def _attend_in_blocks(q_BxTxHxC, k_BxTxHxC, v_BxTxHxC, window: int) -> jax.Array:
    """As `attend_window`, in memory O(T W): a block of W queries sees its own keys and those of the block before."""
    batch, length = q_BxTxHxC.shape[:2]

    def cut(x):
        x = jnp.pad(x, ((0, 0), (0, -length % window), (0, 0), (0, 0)))
        return x.reshape(batch, -1, window, *x.shape[2:])

    def joined(x):
        x = cut(x)
        before = jnp.pad(x, ((0, 0), (1, 0), (0, 0), (0, 0), (0, 0)))[:, :-1]
        return jnp.concatenate([before, x], axis=2).reshape(-1, 2 * window, *x.shape[3:])

    q = cut(q_BxTxHxC)
    # The first block has none before it.
    filled = (jnp.arange(q.shape[1]) > 0)[:, None] | (jnp.arange(2 * window) >= window)
    context = attend_window(
        q.reshape(-1, *q.shape[2:]), joined(k_BxTxHxC), joined(v_BxTxHxC), window, jnp.tile(filled, (batch, 1))
    )
    return context.reshape(batch, -1, *context.shape[2:])[:, :length]
