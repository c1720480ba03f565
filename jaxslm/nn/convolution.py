"""Convolution over time, channels last.

Legend: B batch, T time, I input channels, O output channels, K taps of the kernel, G groups.
"""

import jax
import jax.numpy as jnp
from flax import nnx


class Conv1d(nnx.Module):
    """`y_BxTxO` of `x_BxTxI`, weight [K, I / G, O], computed in the dtype of the input.

    padding: zeros put before and after the input. Kernels are small beside the transformer's: replicated.
    """

    def __init__(
        self,
        d_in: int,
        d_out: int,
        kernel: int,
        key: jax.Array,
        *,
        stride: int = 1,
        groups: int = 1,
        padding: tuple[int, int] = (0, 0),
        bias: bool = False,
    ):
        fan_in = kernel * d_in // groups
        weight = jax.random.normal(key, (kernel, d_in // groups, d_out), jnp.float32) * (2 / fan_in) ** 0.5
        self.weight = nnx.Param(weight, logical_axes=(None, None, None))
        self.bias = nnx.Param(jnp.zeros(d_out), logical_axes=(None,)) if bias else None
        self.stride, self.groups, self.padding = stride, groups, padding

    def __call__(self, x_BxTxI: jax.Array) -> jax.Array:
        # The compiler's own convolution beats matrix products of strided windows on a CPU, and is what a TPU or a GPU
        # tiles best.
        y_BxTxO = jax.lax.conv_general_dilated(
            x_BxTxI,
            self.weight[...].astype(x_BxTxI.dtype),
            (self.stride,),
            [self.padding],
            dimension_numbers=("NWC", "WIO", "NWC"),
            feature_group_count=self.groups,
        )
        return y_BxTxO if self.bias is None else y_BxTxO + self.bias[...].astype(x_BxTxI.dtype)
