import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxslm.audio.spectra import MelSpectrogram, mel_bands, mirror
from jaxslm.codec import spectral_losses as losses

torch = pytest.importorskip("torch")
librosa = pytest.importorskip("librosa")
F = torch.nn.functional
RATE = 16_000
WINDOWS = (64, 256)


def pair(n=777, batch=2):
    rng = np.random.default_rng(0)
    tone = np.sin(np.arange(n) / 9) * np.linspace(0, 0.5, n)
    real = (tone + 0.01 * rng.normal(size=(batch, n))).astype(np.float32)
    return (real + 0.05 * rng.normal(size=real.shape)).astype(np.float32), real


def magnitude(x, n_fft, hop, window=None, center=True):
    window = window or n_fft
    hann = torch.hann_window(window)
    return torch.stft(x, n_fft, hop, window, hann, center=center, return_complex=True).abs().transpose(1, 2)


def bands(n_fft, n_mels, **options):
    return torch.tensor(librosa.filters.mel(sr=RATE, n_fft=n_fft, n_mels=n_mels, **options).T)


def soundstream(x, y):
    total = 0.0
    for w in WINDOWS:
        mel = bands(512, 64, htk=True, norm=None)
        a, b = (magnitude(s, 512, w // 4, w) ** 2 @ mel for s in (x, y))
        total = total + (a - b).abs().sum(-1).mean()
        total = total + (w / 2) ** 0.5 * (a.clamp(1e-5).log() - b.clamp(1e-5).log()).norm(dim=-1).mean()
    return total


def encodec(x, y):
    total = 0.0
    for w in WINDOWS:
        mel, p, hop = bands(w, 64, htk=True, norm=None, fmin=64), (w - w // 4) // 2, w // 4
        logs = []
        for s in (x, y):
            s = F.pad(F.pad(s, (p, p), "reflect"), (0, -s.shape[1] % hop))
            power = magnitude(s, w, hop, center=False) ** 2 / torch.hann_window(w).square().sum()
            logs.append(power @ mel)
        a, b = logs
        total = total + F.l1_loss(a, b) + F.mse_loss((1e-5 + a).log10(), (1e-5 + b).log10())
    return total / (2 * len(WINDOWS))


def dac(x, y):
    total = 0.0
    for w, mels in ((64, 10), (256, 40)):
        a, b = (magnitude(s, w, w // 4) @ bands(w, mels) for s in (x, y))
        total = total + F.l1_loss(a.clamp(1e-5).log10(), b.clamp(1e-5).log10())
    return total


def hifigan(x, y):
    a, b = (magnitude(F.pad(s, (96, 96), "reflect"), 256, 64, center=False) @ bands(256, 20) for s in (x, y))
    return F.l1_loss(a.clamp(1e-5).log(), b.clamp(1e-5).log())


def wavegan(x, y):
    a, b = (magnitude(s, 256, 40, 150).clamp(1e-7**0.5) for s in (x, y))
    return (b - a).norm() / b.norm() + F.l1_loss(b.log(), a.log())


HIFIGAN = MelSpectrogram(RATE, 256, 64, 20, framing="whole")
CASES = {
    "soundstream": (lambda x, y, n=None: losses.soundstream_mel(x, y, RATE, n, windows=WINDOWS), soundstream),
    "encodec": (lambda x, y, n=None: losses.encodec_mel(x, y, RATE, n, windows=WINDOWS), encodec),
    "dac": (lambda x, y, n=None: losses.dac_mel(x, y, RATE, n, bands={64: 10, 256: 40}), dac),
    "hifigan": (lambda x, y, n=None: losses.log_mel_l1(x, y, HIFIGAN, n), hifigan),
    "stft": (lambda x, y, n=None: losses.multi_resolution_stft(x, y, n, scales=((256, 40, 150),)), wavegan),
}


@pytest.mark.filterwarnings("ignore:Empty filters")
@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradient_equal_the_published_ones_in_torch(name):
    ours, published = CASES[name]
    fake, real = pair()
    loss, gradient = jax.jit(jax.value_and_grad(ours))(fake, real)
    torch_fake = torch.tensor(fake, requires_grad=True)
    expected = published(torch_fake, torch.tensor(real))
    expected.backward()
    np.testing.assert_allclose(loss, expected.item(), rtol=1e-4)
    scale = torch_fake.grad.abs().max().item()
    np.testing.assert_allclose(gradient / scale, torch_fake.grad.numpy() / scale, atol=1e-3)


@pytest.mark.parametrize("name", CASES)
def test_a_padded_row_has_the_loss_it_has_alone_and_no_gradient_beyond_its_end(name):
    ours, _ = CASES[name]
    fake, real = pair(batch=1)
    alone = jax.jit(ours)(fake[:, :500], real[:, :500])
    padded = fake.copy()
    padded[:, 500:] = 3.0
    loss, gradient = jax.jit(jax.value_and_grad(ours))(padded, real, jnp.array([500]))
    np.testing.assert_allclose(loss, alone, rtol=2e-5)
    assert np.any(gradient[:, :500]) and not np.any(gradient[:, 500:])


@pytest.mark.parametrize("name", CASES)
def test_silence_against_silence_is_0_and_its_gradient_finite(name):
    ours, _ = CASES[name]
    silence = jnp.zeros((1, 300))
    loss, gradient = jax.jit(jax.value_and_grad(ours))(silence, silence)
    assert loss < 1e-12 and np.all(np.isfinite(gradient))


def test_rows_are_mirrored_at_their_own_ends():
    row = np.arange(7.0, dtype=np.float32)
    for n in (1, 2, 5, 7):
        ours = mirror(jnp.array(row[None]), 4, 6, jnp.array([n]))[0]
        np.testing.assert_array_equal(ours[: n + 10], np.pad(row[:n], (4, 6), mode="reflect"))


def test_bands_are_those_of_librosa():
    np.testing.assert_array_equal(
        mel_bands(RATE, 256, 20, 64.0, None, True, False), bands(256, 20, fmin=64, htk=True, norm=None)
    )


def test_an_unknown_framing_is_refused():
    with pytest.raises(ValueError, match="framing is 'middle'"):
        MelSpectrogram(RATE, 64, 16, 8, framing="middle")(jnp.zeros((1, 300)))
