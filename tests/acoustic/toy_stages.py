"""A toy world in which the codes of a clip follow from its units and its voice, and stages that have learnt it.

Code q of a frame with unit u in voice v is (3 u + 5 q + 4 v) mod K.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxslm.acoustic.autoregressive import Prompt, Stage, StageFacts
from jaxslm.acoustic.frames import AcousticCrops, FrameRates
from jaxslm.data.acoustic_layouts import ACOUSTIC_LAYOUTS
from jaxslm.data.segments import LayoutSettings
from jaxslm.data.token_index import EncodedUtterance
from jaxslm.generation.sampler import Sampling
from jaxslm.models.decoder import Decoder, DecoderConfig
from jaxslm.tokenizer import load_tokenizer
from jaxslm.vocabulary import build_vocabulary

K, Q, N_COARSE, N_UNITS, VOICES = 8, 3, 2, 4, 2
RATES = FrameRates(25.0, 50.0)
CROPS = AcousticCrops(coarse_levels=N_COARSE, seconds=0.16)  # 8 frames of codes, 4 of units
CODEC = dict(name="toy", sha256="c" * 64, frame_rate=50.0, codebook_sizes=[K] * Q)
VOCABULARY = build_vocabulary(load_tokenizer("none"), N_UNITS, "b" * 64, codec=CODEC)


def codes_of(units: np.ndarray, voice: int) -> np.ndarray:
    """[T, Q] of units [U]."""
    frames_T = np.repeat(units, 2)
    return ((3 * frames_T[:, None] + 5 * np.arange(Q) + 4 * voice) % K).astype(np.int32)


def clip(rng: np.random.Generator, n_units: int, voice: int) -> Prompt:
    units = rng.integers(0, N_UNITS, n_units)
    return Prompt(units, codes_of(units, voice))


def untrained(stage: str, *, crops: AcousticCrops = CROPS, codec: dict = CODEC, seed: int = 0) -> Stage:
    vocabulary = build_vocabulary(load_tokenizer("none"), N_UNITS, "b" * 64, codec=codec)
    config = DecoderConfig(vocabulary.padded_size, d_model=64, n_layers=2, n_heads=4, n_kv_heads=4, d_ff=128)
    facts = StageFacts(stage, RATES, crops, Sampling(temperature=0.5, top_p=1.0), codec, "toy units")
    return Stage(Decoder(config, jax.random.key(seed)), vocabulary, facts)


def _batch(stage: str, step: int, size: int = 48) -> dict[str, np.ndarray]:
    """Clips of 1 to 12 units, laid out as for training."""
    rng = np.random.default_rng(step)
    rows = np.zeros((size, 28), np.int32), np.zeros((size, 28), np.float32)
    for row in range(size):
        units, codes = clip(rng, int(rng.integers(1, 13)), int(rng.integers(VOICES)))
        empty = np.zeros(0, np.int32)
        utterance = EncodedUtterance(
            empty, units, np.zeros(1), None, durations=np.ones(len(units), np.int32), codes=codes, rates=RATES
        )
        segments = ACOUSTIC_LAYOUTS[stage].build(
            utterance, VOCABULARY, step * size + row, LayoutSettings(acoustic=CROPS)
        )
        at = 0
        for segment in segments:
            here = slice(at, at + len(segment.ids))
            rows[0][row, here], rows[1][row, here], at = segment.ids, segment.loss_weight, here.stop
    return dict(ids=rows[0], weights=rows[1])


@functools.cache
def trained(stage: str) -> Stage:
    start, steps = untrained(stage), dict(coarse=700, fine=250)[stage]
    optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, steps))

    def loss(model, ids_BxN, weights_BxN):
        columns = jnp.broadcast_to(jnp.arange(ids_BxN.shape[1]), ids_BxN.shape)
        hidden = model(ids_BxN, positions_BxT=columns, segment_ids_BxT=jnp.ones_like(ids_BxN))
        nll = optax.softmax_cross_entropy_with_integer_labels(model.logits(hidden[:, :-1]), ids_BxN[:, 1:])
        return (nll * weights_BxN[:, 1:]).sum() / weights_BxN.sum()

    @jax.jit
    def step(model, state, ids, weights):
        grads = jax.grad(loss)(model, ids, weights)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(model, updates), state

    model, state = start.model, optimizer.init(start.model)
    for number in range(steps):
        model, state = step(model, state, **_batch(stage, number))
    return start._replace(model=model)
