"""Matrix products with operands of 8 bits, forward and backward, by qwix (the extra `quantize`).

An operand becomes 8-bit values times float32 scales, one for each row or column that the product keeps. A scale is the
largest magnitude of this step's row or column, over the shards of all devices; values are rounded to the nearest, not
stochastically, and no state is kept. Sums are made in int32 (exact for up to 133,000 tokens a device), or in float32 of
float8 values.

Legend: N tokens, D input features, F output features.
"""

import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxslm.nn.layers import Product, plain_product


class Formats(NamedTuple):
    forward: jnp.dtype  # of activations and weights
    gradient: jnp.dtype  # of gradients of the output, for both backward products
    calibration: str = "absmax"


FORMATS: Mapping[str, Formats] = {
    # The largest magnitude becomes 127. By "absmax" alone it is 127.5, which the last bit of a scale rounds either way.
    "int8": Formats(jnp.int8, jnp.int8, f"absmax,{127.5 / 127}"),
    "fp8": Formats(jnp.float8_e4m3fn, jnp.float8_e5m2),  # Micikevicius et al. 2022
}
QUANTIZATIONS = ("", *FORMATS)


def product_of(quantization: str) -> Product:
    """The product of one of QUANTIZATIONS; "" is the plain one. Raises ValueError if qwix is not installed."""
    if not quantization:
        return plain_product
    try:
        import qwix  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"model.quantization='{quantization}' needs qwix ({error}): pip install 'jaxslm[quantize]', or leave it ''"
        ) from error
    return functools.partial(_product, quantization)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _product(kind: str, x_NxD: jax.Array, weight_DxF: jax.Array) -> jax.Array:
    return _product_forward(kind, x_NxD, weight_DxF)[0]


def _product_forward(kind, x_NxD, weight_DxF):
    dtype, _, calibration = FORMATS[kind]
    x, weight = _quantize(x_NxD, 0, dtype, calibration), _quantize(weight_DxF, 1, dtype, calibration)
    return _dot(x, weight, 1, 0).astype(x_NxD.dtype), (x, weight)


def _product_backward(kind, saved, d_y_NxF):
    """What was summed forward is a channel here: its scales go into the gradient before that is quantized (as in qwix's
    own training), so that the 8-bit values of the forward pass serve again."""
    x, weight = saved
    _, dtype, calibration = FORMATS[kind]
    for_x = _quantize(d_y_NxF * weight.scale, 0, dtype, calibration)
    for_weight = _quantize(d_y_NxF * x.scale, 1, dtype, calibration)
    d_x, d_weight = _dot(for_x, weight.qvalue, 1, 1), _dot(x.qvalue, for_weight, 0, 0)
    return d_x.astype(d_y_NxF.dtype), d_weight


_product.defvjp(_product_forward, _product_backward)


def _quantize(x: jax.Array, channel: int, dtype: jnp.dtype, calibration: str):
    """The matrix `x` as a qwix.QArray, with a float32 scale for each index of axis `channel`."""
    import qwix

    return qwix.quantize(x.astype(jnp.float32), dtype, channelwise_axes=[channel], calibration_method=calibration)


def _dot(a, b, axis_a: int, axis_b: int) -> jax.Array:
    """float32 product that sums over `axis_a` of the matrix `a` and `axis_b` of `b`."""
    import qwix

    return qwix.dot_general(a, b, (((axis_a,), (axis_b,)), ((), ())), preferred_element_type=jnp.float32)
