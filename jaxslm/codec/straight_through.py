"""How gradients pass a quantizer."""

import jax
import jax.numpy as jnp

_TINY = 1e-6


def pass_gradient(x: jax.Array, quantized: jax.Array, rotation: bool = False) -> jax.Array:
    """`quantized`, with gradients that go to `x` [..., C] and not to `quantized`.

    As they are (the straight-through estimator, Bengio et al. 2013), or, with `rotation`, turned and scaled as `x` was
    on its way to `quantized` (Fifty et al. 2024, "Restructuring Vector Quantization with the Rotation Trick", sec. 4).
    """
    quantized = jax.lax.stop_gradient(quantized)
    if not rotation:
        return x + jax.lax.stop_gradient(quantized - x)
    still = jax.lax.stop_gradient(x)
    length, target = (jnp.linalg.norm(v, axis=-1, keepdims=True) for v in (still, quantized))
    a, b = still / jnp.maximum(length, _TINY), quantized / jnp.maximum(target, _TINY)
    middle = a + b
    middle = middle / jnp.maximum(jnp.linalg.norm(middle, axis=-1, keepdims=True), _TINY)

    def along(direction):
        return jnp.sum(x * direction, axis=-1, keepdims=True)

    turned = (x - 2 * along(middle) * middle + 2 * along(a) * b) * (target / jnp.maximum(length, _TINY))
    # The value is the code itself, without the rounding of the rotation.
    return turned + jax.lax.stop_gradient(quantized - turned)
