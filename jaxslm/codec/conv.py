"""Convolutions over time as neural codecs pad and trim them: T frames become ceil(T / stride), or T * stride.

A batch equals its rows alone: where `lengths_B` is given, what lies beyond a row's length is not looked at, and the
padding stands where the row ends. Frames that come out beyond a row's length mean nothing; the next convolution, given
`conv.length(lengths_B)`, does not look at them either. Without lengths every frame is real.

A causal convolution also runs on chunks: `state = conv.start(batch, dtype)`, then `y, state = conv.stream(x, state)`
for chunks of a multiple of the stride; the pieces put together are the whole.

No convolution here, nor in its gradients, is one with a dilated input (`lhs_dilation`): XLA runs those many times
slower. A strided one is an ordinary one of windows laid side by side; a transposed one is a few matrix products.

Legend: B batch, T frames in, Q frames out, I input channels, O output channels, K taps, G groups, S stride.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxslm.codec.shifts import weighted_shifts
from jaxslm.masking import mask_time
from jaxslm.nn.weight_norm import fold

PADS = ("zero", "reflect", "edge")
NORMS = ("none", "weight")


def zero_beyond(x_BxTxC: jax.Array, lengths_B: jax.Array | None) -> jax.Array:
    """`x` with 0 beyond each row's length."""
    return x_BxTxC if lengths_B is None else jnp.where(mask_time(x_BxTxC.shape[1], lengths_B, 3), x_BxTxC, 0)


def pad_time(
    x_BxTxC: jax.Array,
    left: int,
    right: int,
    pad: str,
    lengths_B: jax.Array | None = None,
    rights_B: jax.Array | int | None = None,
) -> jax.Array:
    """[B, left + T + right, C]: what stands before a row's first frame and from its length on is padding.

    pad: "zero", "reflect" (without the outermost frame) or "edge" (the outermost frame again). A row no longer than
      the larger padding is reflected as if zeros followed it, as EnCodec does it (encodec/modules/conv.py, pad1d).
    rights_B: frames of padding behind each row that will be looked at, `right` where None.
    """
    length = x_BxTxC.shape[1]
    if lengths_B is None and pad != "reflect":
        return jnp.pad(x_BxTxC, ((0, 0), (left, right), (0, 0)), mode="constant" if pad == "zero" else "edge")
    if lengths_B is None:
        zeros = max(0, max(left, right) - length + 1)
        x = jnp.pad(x_BxTxC, ((0, 0), (0, zeros), (0, 0)))
        return jnp.pad(x, ((0, 0), (left, right), (0, 0)), mode="reflect")[:, : left + length + right]
    if pad == "zero":
        return jnp.pad(zero_beyond(x_BxTxC, lengths_B), ((0, 0), (left, right), (0, 0)))
    lengths_Bx1 = lengths_B[:, None]
    source = jnp.arange(-left, length + right)[None, :]
    if pad == "edge":
        source = jnp.clip(source, 0, jnp.maximum(lengths_Bx1 - 1, 0))
        return jnp.take_along_axis(x_BxTxC, source[..., None], axis=1)
    rights_Bx1 = jnp.reshape(right if rights_B is None else rights_B, (-1, 1))
    last = jnp.maximum(lengths_Bx1 - 1, jnp.maximum(left, rights_Bx1))
    source = jnp.abs(source)
    source = jnp.where(source > last, 2 * last - source, source)
    real = (source >= 0) & (source < lengths_Bx1)
    padded = jnp.take_along_axis(x_BxTxC, jnp.clip(source, 0, length - 1)[..., None], axis=1)
    return jnp.where(real[..., None], padded, 0)


class _Kernel(nnx.Module):
    """A kernel with its last axis the one that weight norm keeps, and a bias.

    norm: "none" has the parameter `weight`; "weight" has `size` and `direction`, and the weight is
      size * direction / |direction| (Salimans & Kingma 2016).
    """

    def __init__(self, shape: tuple[int, int, int], fan_in: int, d_out: int, key: jax.Array, norm: str, bias: bool):
        if norm not in NORMS:
            raise ValueError(f"norm='{norm}' is not one of {', '.join(NORMS)}")
        bound = fan_in**-0.5
        kernel = jax.random.uniform(key, shape, jnp.float32, -bound, bound)
        axes = dict(logical_axes=(None, None, None))
        normed = norm == "weight"
        # `nnx.data`: `fold` puts parameters where None was.
        self.weight = nnx.data(None if normed else nnx.Param(kernel, **axes))
        self.size = nnx.data(nnx.Param(kernel_size(kernel), logical_axes=(None,)) if normed else None)
        self.direction = nnx.data(nnx.Param(kernel, **axes) if normed else None)
        self.bias = nnx.Param(jnp.zeros(d_out), logical_axes=(None,)) if bias else None

    def kernel(self) -> jax.Array:
        """float32."""
        if self.weight is not None:
            return self.weight[...]
        return self.size[...] * self.direction[...] / _length(self.direction[...])

    def fold(self):
        """The same function with the parameter `weight` alone; not while tracing."""
        folded = jax.tree.map(lambda value: value, self)
        if self.weight is None:
            size, direction = (np.asarray(part[...]) for part in (self.size, self.direction))
            folded.weight = nnx.Param(jnp.asarray(fold(size, direction, (0, 1))), logical_axes=(None, None, None))
        folded.size = folded.direction = nnx.data(None)
        return folded

    def _biased(self, y: jax.Array) -> jax.Array:
        return y if self.bias is None else y + self.bias[...].astype(y.dtype)


def kernel_size(kernel: jax.Array) -> jax.Array:
    """What `size` is of a kernel: its length for each entry of the last axis."""
    return _length(kernel).reshape(-1)


def _length(kernel: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.sum(kernel * kernel, axis=(0, 1), keepdims=True))


def fold_weight_norm(module):
    """`module` with the weight norm of all convolutions in it folded into their weights: for inference."""
    is_kernel = lambda node: isinstance(node, _Kernel)  # noqa: E731
    return jax.tree.map(lambda node: node.fold() if is_kernel(node) else node, module, is_leaf=is_kernel)


class Conv(_Kernel):
    """`y_BxQxO` of `x_BxTxI`, Q = ceil(T / stride), in the dtype of the input; weight [K, I / G, O].

    causal: a frame sees no later one; all padding but what completes the last window stands before the input. Else it
      stands on both sides, one frame more before than behind where it is odd.
    pad: see `pad_time`.
    Raises ValueError for a kernel shorter than the stride, and for a stride with dilation or groups.
    """

    def __init__(
        self,
        d_in: int,
        d_out: int,
        kernel: int,
        key: jax.Array,
        *,
        causal: bool,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        pad: str = "zero",
        norm: str = "none",
        bias: bool = True,
    ):
        if pad not in PADS:
            raise ValueError(f"pad='{pad}' is not one of {', '.join(PADS)}")
        if stride > 1 and (dilation > 1 or groups > 1):
            raise ValueError(f"stride={stride} with dilation={dilation} and groups={groups}: leave those at 1")
        if (kernel - 1) * dilation + 1 < stride:
            raise ValueError(f"kernel={kernel} is shorter than stride={stride}: frames would go unseen")
        super().__init__((kernel, d_in // groups, d_out), kernel * d_in // groups, d_out, key, norm, bias)
        self.stride, self.dilation, self.groups, self.causal, self.pad = stride, dilation, groups, causal, pad
        self.d_in, self.taps = d_in, kernel

    def length(self, lengths):
        """Frames out of `lengths` frames in (an int or an array)."""
        return -(-lengths // self.stride)

    @property
    def _context(self) -> int:
        """Frames of padding, without those that complete the last window."""
        return (self.taps - 1) * self.dilation + 1 - self.stride

    def __call__(self, x_BxTxI: jax.Array, lengths_B: jax.Array | None = None) -> jax.Array:
        after = 0 if self.causal else self._context // 2
        right = after + -x_BxTxI.shape[1] % self.stride
        rights_B = None if lengths_B is None else after + -lengths_B % self.stride
        return self._apply(pad_time(x_BxTxI, self._context - after, right, self.pad, lengths_B, rights_B))

    def _apply(self, x_BxTxI: jax.Array) -> jax.Array:
        """Over whole windows of `x`."""
        kernel = self.kernel().astype(x_BxTxI.dtype)
        if 1 < self.groups == self.d_in == kernel.shape[-1]:
            return self._biased(weighted_shifts(x_BxTxI, kernel[:, 0], self.dilation))
        if self.stride > 1:
            lacking = -self.taps % self.stride
            kernel = jnp.pad(kernel, ((0, lacking), (0, 0), (0, 0)))
            x_BxTxI = jnp.pad(x_BxTxI, ((0, 0), (0, lacking), (0, 0)))
            x_BxTxI = x_BxTxI.reshape(x_BxTxI.shape[0], -1, self.stride * self.d_in)
            kernel = kernel.reshape(-1, self.stride * self.d_in, kernel.shape[-1])
        y_BxQxO = jax.lax.conv_general_dilated(
            x_BxTxI,
            kernel,
            (1,),
            "VALID",
            rhs_dilation=(self.dilation,),
            dimension_numbers=("NWC", "WIO", "NWC"),
            feature_group_count=self.groups,
        )
        return self._biased(y_BxQxO)

    def start(self, batch: int, dtype=jnp.float32) -> jax.Array:
        """What stands before the first frame. Raises ValueError for a convolution that is not causal."""
        if not self.causal:
            raise ValueError("a convolution that is not causal cannot run on chunks: it would need what comes later")
        # Reflected and edge frames come of the first chunk: the empty state says that it is the first.
        return jnp.zeros((batch, self._context if self.pad == "zero" else 0, self.d_in), dtype)

    def stream(self, x_BxTxI: jax.Array, state: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(frames of this chunk, state). Raises ValueError for a chunk that is no multiple of the stride, and for a
        first chunk too short to be reflected.
        """
        n, context = x_BxTxI.shape[1], self._context
        if n % self.stride:
            raise ValueError(f"a chunk of {n} frames is no multiple of the stride {self.stride}: send whole hops")
        if state.shape[1] < context:
            if self.pad == "reflect" and n <= context:
                raise ValueError(
                    f"the first chunk has {n} frames where {context + 1} are reflected: make the first chunk longer"
                )
            x_BxTxI = pad_time(x_BxTxI, context, 0, self.pad)
        else:
            x_BxTxI = jnp.concatenate([state, x_BxTxI], axis=1)
        return self._apply(x_BxTxI), x_BxTxI[:, x_BxTxI.shape[1] - context :]


class ConvTranspose(_Kernel):
    """`y_Bx(T S)xO` of `x_BxTxI` in the dtype of the input; weight [K, O / G, I], that of the convolution of which this
    is the transpose.

    Frame t adds `x_t weight_k` to sample t S + k; the K - S samples too many are cut: a share `trim_right_ratio` of
    them, all by default, behind if causal; else one half before and one behind, the larger before.
    """

    def __init__(
        self,
        d_in: int,
        d_out: int,
        kernel: int,
        stride: int,
        key: jax.Array,
        *,
        causal: bool,
        trim_right_ratio: float = 1.0,
        groups: int = 1,
        norm: str = "none",
        bias: bool = True,
    ):
        if kernel < stride:
            raise ValueError(f"kernel={kernel} is shorter than stride={stride}: samples would stay empty")
        if not causal and trim_right_ratio != 1.0:
            raise ValueError(f"trim_right_ratio={trim_right_ratio} is for causal convolutions; leave it at 1")
        self.n_blocks = -(-kernel // stride)
        super().__init__((kernel, d_out // groups, d_in), self.n_blocks * d_in // groups, d_out, key, norm, bias)
        self.stride, self.groups, self.causal, self.d_in = stride, groups, causal, d_in
        surplus = kernel - stride
        self.trim_left = surplus - (math.ceil(surplus * trim_right_ratio) if causal else surplus // 2)

    def length(self, lengths):
        """Frames out of `lengths` frames in (an int or an array)."""
        return lengths * self.stride

    def __call__(self, x_BxTxI: jax.Array, lengths_B: jax.Array | None = None) -> jax.Array:
        first, skipped = divmod(self.trim_left, self.stride)
        behind = first + (skipped > 0)
        x_BxTxI = zero_beyond(x_BxTxI, lengths_B)
        padded = jnp.pad(x_BxTxI, ((0, 0), (self.n_blocks - 1 - first, behind), (0, 0)))
        return self._apply(padded)[:, skipped:][:, : x_BxTxI.shape[1] * self.stride]

    def _apply(self, x_BxTxI: jax.Array) -> jax.Array:
        """S samples for each frame but the first n_blocks - 1, from it and so many frames before it."""
        n_before = self.n_blocks - 1
        batch, n = x_BxTxI.shape[0], x_BxTxI.shape[1] - n_before
        kernel = self.kernel().astype(x_BxTxI.dtype)
        kernel = jnp.pad(kernel, ((0, self.n_blocks * self.stride - kernel.shape[0]), (0, 0), (0, 0)))
        shifted = [x_BxTxI[:, n_before - j :][:, :n] for j in range(self.n_blocks)]
        if self.groups > 1:
            kernel = kernel.reshape(self.n_blocks, self.stride, -1, self.groups, self.d_in // self.groups)
            by_group = [x_BxQxI.reshape(batch, n, self.groups, -1) for x_BxQxI in shifted]
            y = sum(jnp.einsum("bqgi,sogi->bqsgo", x, taps) for x, taps in zip(by_group, kernel, strict=True))
        elif batch * n < self.d_in:
            # One product, whose parts are shifted: XLA:CPU copies weights that are cut, more than all else here.
            y = x_BxTxI.reshape(-1, self.d_in) @ kernel.reshape(-1, self.d_in).T
            blocks = y.reshape(batch, -1, self.n_blocks, y.shape[1] // self.n_blocks)
            y = sum(blocks[:, n_before - j :, j][:, :n] for j in range(self.n_blocks))
        else:
            # One axis of frames: with two, XLA:CPU transposes for the gradient of the weight.
            kernel = kernel.reshape(self.n_blocks, -1, self.d_in)
            y = sum(x.reshape(-1, self.d_in) @ taps.T for x, taps in zip(shifted, kernel, strict=True))
        return self._biased(y.reshape(batch, n * self.stride, -1))

    def start(self, batch: int, dtype=jnp.float32) -> jax.Array:
        """Silence before the first frame. Raises ValueError where a sample needs later frames."""
        if not self.causal or self.trim_left:
            raise ValueError("a transposed convolution runs on chunks only if causal, with trim_right_ratio=1")
        return jnp.zeros((batch, self.n_blocks - 1, self.d_in), dtype)

    def stream(self, x_BxTxI: jax.Array, state: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(samples of this chunk, state)."""
        x_BxTxI = jnp.concatenate([state, x_BxTxI], axis=1)
        return self._apply(x_BxTxI), x_BxTxI[:, x_BxTxI.shape[1] - self.n_blocks + 1 :]
