"""Codes by a few passes: how many there are, what they leave alone, and that a model learns to be asked so."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxslm.acoustic.masked import MaskedConfig, MaskedModel
from jaxslm.acoustic.objective import masked_sums
from jaxslm.acoustic.unmasking import Unmasking, unmask

U, Q, K, T = 10, 3, 12, 16
CONFIG = MaskedConfig(n_units=U, n_levels=Q, codebook_size=K, d_model=48, n_layers=2, n_heads=4, d_ff=96, conv_kernel=3)
PASSES = (4, 1, 1)


@functools.cache
def model(**changes) -> MaskedModel:
    return jax.jit(functools.partial(MaskedModel, dataclasses.replace(CONFIG, **changes)))(jax.random.key(0))


def keys(seed: int, rows: int) -> jax.Array:
    return jax.random.split(jax.random.key(seed), rows)


def batch(seed: int, rows: int = 8):
    """Units, and codes that they and the voice of the clip decide together: (unit + 3 level + voice) mod K, of which
    the voice can only be heard from a prompt.
    """
    rng = np.random.default_rng(seed)
    units, voice = rng.integers(0, U, (rows, T)), rng.integers(0, 2, rows) * 5
    codes = (units[..., None] + 3 * np.arange(Q) + voice[:, None, None]) % K
    return jnp.asarray(units, jnp.int32), jnp.asarray(codes, jnp.int32)


def test_the_cosine_schedule_ends_with_all_frames_of_each_level():
    levels, shares, noise = Unmasking(passes=(16, 1, 1, 1, 1, 1, 1, 1)).schedule()
    assert len(levels) == 16 + 7 and levels.tolist() == [0] * 16 + list(range(1, 8))
    np.testing.assert_allclose(shares[:15], np.cos(np.pi / 2 * np.arange(1, 16) / 16), rtol=1e-6)
    assert (shares[15:] == 0).all() and (noise[15:] == 0).all()


def test_frames_beyond_a_clip_change_nothing_in_it():
    units, codes = batch(0, 2)
    known = jnp.zeros((2, T, Q), bool).at[:, :5].set(True)
    run = jax.jit(lambda model, *inputs: model(*inputs))
    for each in (model(), model(conv_kernel=0)):
        whole = run(each, units, codes, known, jnp.array([T, 9]))
        alone = run(each, units[1:, :9], codes[1:, :9], known[1:, :9], jnp.array([9]))
        np.testing.assert_allclose(whole[1, :9], alone[0], atol=1e-5)
        hidden = run(each, units, jnp.where(known, codes, 7), known, jnp.array([T, 9]))
        np.testing.assert_array_equal(hidden, whole)  # what is not known is not looked at


@pytest.mark.parametrize("guidance", (0.0, 1.0))
def test_the_prompt_stays_and_every_frame_gets_a_code(guidance):
    units, codes = batch(0, 3)
    prompt_B, frames_B = jnp.array([0, 4, 15]), jnp.array([T, 11, T])
    settings = Unmasking(passes=PASSES, guidance=guidance)
    made = jax.jit(functools.partial(unmask, settings=settings))(model(), units, frames_B, codes, prompt_B, keys(1, 3))
    assert made.shape == codes.shape and made.dtype == jnp.int32
    assert ((made >= 0) & (made < K)).all()
    for row, prompt in enumerate(prompt_B):
        np.testing.assert_array_equal(made[row, :prompt], codes[row, :prompt])
    # What stands in the place of codes to come is not looked at.
    other = jnp.where(jnp.arange(T)[:, None] < prompt_B[:, None, None], codes, (codes + 1) % K)
    again = jax.jit(functools.partial(unmask, settings=settings))(model(), units, frames_B, other, prompt_B, keys(1, 3))
    np.testing.assert_array_equal(made, again)


class Attentive:
    """Logits of code 1 that are .8 where level 0 of the prompt's frame is known, of code 0 that are 1, else -9."""

    config = MaskedConfig(U, 2, K)

    def __call__(self, units_BxT, codes_BxTxQ, known_BxTxQ, frames_B):
        return 0.8 * known_BxTxQ[:, :1, 0]

    def logits(self, hidden_Bx1, level):
        return jnp.full((len(hidden_Bx1), T, K), -9.0).at[..., 0].set(1.0).at[..., 1].set(hidden_Bx1)


def test_guidance_hides_of_the_prompt_what_training_without_prompts_hides():
    units, codes = batch(0, 1)
    options = dict(passes=(1, 1), temperature=0.0)
    plain, guided = (
        unmask(
            Attentive(), units, jnp.array([T]), codes[..., :2], jnp.array([1]), keys(1, 1), Unmasking(**options, **w)
        )
        for w in ({}, dict(guidance=1.0))
    )
    assert (plain[0, 1:] == 0).all()
    # The prompt is hidden at the level that is drawn, which moves its codes, and not below it.
    assert (guided[0, 1:, 0] == 1).all() and (guided[0, 1:, 1] == 0).all()


def test_each_pass_reveals_the_surest_frames_and_as_many_as_the_schedule_says():
    """With a model that always says the same."""

    class Oracle:
        config = CONFIG

        def __init__(self):
            self.seen = []

        def __call__(self, units, codes, known, frames):
            jax.debug.callback(lambda known: self.seen.append(np.asarray(known)), known, ordered=True)
            return units

        def logits(self, hidden, level):
            sure = 5.0 + jnp.arange(T)[None, :, None]  # later frames are surer
            return sure * jax.nn.one_hot((hidden + 3 * level) % K, K)

    units, codes = batch(3, 1)
    oracle = Oracle()
    settings = Unmasking(passes=PASSES, temperature=0.0, choice_temperature=0.0)
    made = unmask(oracle, units, jnp.array([T]), jnp.zeros_like(codes), jnp.array([4]), keys(0, 1), settings)
    jax.effects_barrier()
    np.testing.assert_array_equal(made[0, 4:], (units[0, 4:, None] + 3 * np.arange(Q)) % K)
    n_known = [seen[0].sum(axis=0).tolist() for seen in oracle.seen]
    hidden = [int(12 * np.cos(np.pi / 2 * i / 4)) for i in range(1, 4)]
    assert n_known == [[4, 4, 4], *([T - n, 4, 4] for n in hidden), [T, 4, 4], [T, T, 4]]
    assert all(seen[0, T - 1, 0] for seen in oracle.seen[1:])  # the surest comes first


def test_a_model_learns_codes_from_units_and_the_voice_from_the_prompt():
    optimizer = optax.adam(3e-3)

    def loss_of(model, units, codes, keys_B):
        frames = jnp.full((len(units), 1), T)
        rows = dict(units=units, codes=codes, frames=frames, draw=jax.random.key_data(keys_B))
        total, sums = masked_sums(model, rows, prompt_dropout=0.0)
        return total / sums["weight_O"].sum()

    @jax.jit
    def step(model, state, units, codes, keys_B):
        loss, gradient = jax.value_and_grad(loss_of)(model, units, codes, keys_B)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(model, updates), state, loss

    learner = model()
    state = optimizer.init(learner)
    for i in range(300):
        learner, state, loss = step(learner, state, *batch(i, 32), keys(i, 32))
    units, codes = batch(1000, 32)
    prompt_B = jnp.full(32, 4)
    settings = Unmasking(passes=PASSES, temperature=0.5)
    made = jax.jit(functools.partial(unmask, settings=settings))(
        learner, units, jnp.full(32, T), codes, prompt_B, keys(0, 32)
    )
    assert (made[:, 4:] == codes[:, 4:]).mean() > 0.95, loss


def test_rows_of_codes_begin_as_the_codebooks_lie():
    values = jax.random.normal(jax.random.key(3), (Q, K, 6)).at[:, 1].set(0).at[:, 2].set(0.01)
    started = model().with_codebooks(values, jax.random.key(4))
    rows = started.codes[...]
    np.testing.assert_array_equal(rows[:, K], model().codes[...][:, K])  # that of the unknown
    np.testing.assert_allclose(rows[:, :K].std(axis=(1, 2)), 0.02, rtol=1e-4)
    near = jnp.linalg.norm(rows[:, 1] - rows[:, 2], axis=-1)
    assert (near < 0.1 * jnp.linalg.norm(rows[:, 1] - rows[:, 3], axis=-1)).all()
    with pytest.raises(ValueError, match="set model.n_levels and model.codebook_size"):
        model().with_codebooks(values[:2], jax.random.key(4))


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="make it odd"):
        MaskedConfig(U, Q, K, conv_kernel=4)
    with pytest.raises(ValueError, match="each level 1 or more"):
        Unmasking(passes=(3, 0))
    with pytest.raises(ValueError, match="guidance=-1"):
        Unmasking(guidance=-1.0)
    with pytest.raises(ValueError, match="temperature=nan; set it to a number"):
        Unmasking(temperature=float("nan"))
    units, codes = batch(0, 1)
    with pytest.raises(ValueError, match="for 3 levels"):
        unmask(model(), units, jnp.array([T]), codes, jnp.array([0]), jax.random.key(0), Unmasking())


def test_a_row_has_the_codes_it_has_alone():
    units, codes = batch(5, 4)
    frames_B, prompt_B, keys_B = jnp.array([T, 9, 12, T]), jnp.array([0, 2, 0, 5]), keys(3, 4)
    run = jax.jit(functools.partial(unmask, settings=Unmasking(passes=PASSES)))
    together = run(model(), units, frames_B, codes, prompt_B, keys_B)
    for row, n in enumerate(frames_B.tolist()):
        alone = run(
            *(model(), units[row, None, :n], frames_B[row, None], codes[row, None, :n]),
            prompt_B[row, None],
            keys_B[row, None],
        )
        np.testing.assert_array_equal(together[row, :n], alone[0])


def test_logits_that_are_not_finite_are_told():
    units, codes = batch(5, 2)
    broken = jax.tree.map(lambda leaf: leaf, model())
    broken.units.weight[...] = broken.units.weight[...].at[3].set(jnp.nan)
    units = jnp.where(units == 3, 4, units).at[1, 2].set(3)
    made = unmask(broken, units, jnp.array([T, T]), codes, jnp.zeros(2, int), keys(0, 2), Unmasking(passes=PASSES))
    assert (made[0] >= 0).all() and (made[1] == -1).all()
