"""Forced alignment: speed of the CTC Viterbi and of PocketSphinx, and errors of both against espeak-ng's word times.

Trained CTC models are not at hand offline, so a small one of characters (MFCC, five convolutions) learns the demo
speech first; `--model=hama` takes the phoneme model of the PyPI package of that name instead (pip install --no-deps).

Shape letters: B batch, N samples, T frames, D features, V labels, S tokens.
"""

import argparse
import re
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxslm.audio import mfcc
from jaxslm.audio.io import SAMPLE_RATE, read_audio
from jaxslm.benchmarks.measure import report
from jaxslm.data.report import Report
from jaxslm.data.sources import read_source
from jaxslm.units.alignment import AlignmentError, PocketSphinxAligner
from jaxslm.units.ctc import forced_align, with_star
from jaxslm.units.ctc_aligner import CtcAligner, calibrate
from jaxslm.units.pronunciation import pronounce, spoken_words

WIDTH, LAYERS, KERNEL, BATCH = 128, 5, 5, 16
FRAMES, TOKENS = 96, 48  # lengths are padded to multiples of these
ARPABET = dict(
    zip(
        "AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH UH UW V W Y Z ZH".split(),
        "ɑ æ ə ɔ aʊ aɪ b t͡ʃ d ð ɛ ɝ eɪ f g h ɪ i d͡ʒ k l m n ŋ oʊ ɔɪ p ɹ s ʃ t θ ʊ u v w j z ʒ".split(),
        strict=True,
    )
)


def run(argv: list[str]) -> dict:
    """Measures on demo speech that neither training nor calibration has seen; see `measure.report`."""
    parser = argparse.ArgumentParser(prog="bench.py aligner")
    parser.add_argument("--model", choices=("characters", "hama"), default="characters")
    parser.add_argument("--train", type=int, default=400, help="utterances of demo speech the model learns from")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--calibration", type=int, default=40)
    parser.add_argument("--utterances", type=int, default=100)
    args = parser.parse_args(argv)
    start = time.perf_counter()
    sphinx = PocketSphinxAligner()
    aligner = _PhoneAligner(sphinx) if args.model == "hama" else CtcAligner(_CharacterModel(args.train, args.epochs))
    prepared = time.perf_counter() - start
    clips, texts, truth = _speech(args.utterances, seed=5)
    seconds = sum(map(len, clips)) / SAMPLE_RATE
    plain = _errors(aligner.align_batch(clips, texts), truth)
    delay, spread = calibrate(aligner, *_speech(args.calibration, seed=6))
    aligner.delay, aligner.spread = delay, spread
    start = time.perf_counter()
    calibrated = aligner.align_batch(clips, texts)
    whole = time.perf_counter() - start
    tokens = [aligner.spell(text)[0] for text in texts]
    log_probs = [with_star(log_probs_TxV) for log_probs_TxV in aligner.model.log_probs(clips)]
    wrong = texts[1:] + texts[:1]  # every clip with the text of another
    start = time.perf_counter()
    by_sphinx = [_align(sphinx, clip, text) for clip, text in zip(clips, texts, strict=True)]
    peer = time.perf_counter() - start
    return report(
        "aligner",
        ours=seconds / _viterbi_seconds(log_probs, tokens, aligner.model.blank),
        peer=seconds / peer,
        unit="x real time; ours is the Viterbi alone, the peer PocketSphinx with its acoustic model",
        shapes=vars(args) | {"seconds": round(seconds)},
        packages=("jax", "optax", "pocketsphinx"),
        model_ready_s=prepared,
        clips_of_a_minute_x_real_time=_speed_on_minutes(),
        aligner_x_real_time=seconds / whole,
        delay_s=delay,
        spread_s=spread,
        errors_s={
            "ctc": plain,
            "ctc calibrated": _errors(calibrated, truth),
            "pocketsphinx": _errors(by_sphinx, truth),
        },
        wrong_text_aligned={
            "ctc": _accepted(aligner.align_batch(clips, wrong)),
            "pocketsphinx": _accepted([_align(sphinx, clip, text) for clip, text in zip(clips, wrong, strict=True)]),
        },
    )


def _speech(n: int, seed: int) -> tuple[list, list, list]:
    """Clips, texts and exact word times of the demo corpus."""
    utterances = list(read_source(dict(kind="demo", utterances=n, seed=seed), Report()))
    clips = [read_audio(utterance.audio, where=utterance.where).samples for utterance in utterances]
    return clips, [utterance.text for utterance in utterances], [utterance.words for utterance in utterances]


def _align(aligner: PocketSphinxAligner, samples_N: np.ndarray, text: str):
    try:
        return aligner.align(samples_N, text)
    except AlignmentError as error:
        return error


def _accepted(found: list) -> float:
    return 1 - sum(isinstance(words, AlignmentError) for words in found) / len(found)


def _errors(found: list, truth: list) -> dict[str, float]:
    aligned = [pair for pair in zip(found, truth, strict=True) if not isinstance(pair[0], AlignmentError)]
    pairs = [pair for words, known in aligned for pair in zip(words, known, strict=True)]
    starts = np.abs([word.start - known.start for word, known in pairs])
    ends = np.abs([word.end - known.end for word, known in pairs])
    names = {
        "start_median": (starts, 0.5),
        "start_p90": (starts, 0.9),
        "end_median": (ends, 0.5),
        "end_p90": (ends, 0.9),
    }
    errors = {name: round(float(np.quantile(values, at)), 4) for name, (values, at) in names.items()}
    return errors | {"words": len(pairs), "failed": len(found) - len(aligned)}


def _viterbi_seconds(log_probs: list, tokens: list, blank: int, rounds: int = 5) -> float:
    """Of the alignment of all clips; the best round, everything being compiled."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        forced_align(log_probs, tokens, blank=blank)
        times.append(time.perf_counter() - start)
    return min(times)


def _speed_on_minutes(n: int = 8) -> float:
    """x real time on random log-probabilities of a minute each, with 15 letters a second."""
    rng = np.random.default_rng(0)
    log_probs = [np.log(rng.dirichlet(np.full(32, 0.1), 3000) + 1e-9).astype(np.float32) for _ in range(n)]
    return 60 * n / _viterbi_seconds(log_probs, [rng.integers(1, 32, 900) for _ in range(n)], 0)


class _CharacterModel:
    """A `CtcModel` of lower-case letters, trained by `optax.ctc_loss` on demo speech."""

    labels, blank, frame_rate = ["<pad>", "|", *"'abcdefghijklmnopqrstuvwxyz"], 0, mfcc.FRAME_RATE

    def __init__(self, utterances: int, epochs: int):
        clips, texts, _ = _speech(utterances, seed=0)
        frames = [mfcc.mfcc_39(clip) for clip in clips]
        every_FxD = np.concatenate(frames)
        self._mean_D, self._deviation_D = every_FxD.mean(0), every_FxD.std(0) + 1e-3
        spell = CtcAligner(self).spell
        self._params = self._train(frames, [spell(text)[0] for text in texts], epochs)

    def log_probs(self, clips):
        results = []
        for first in range(0, len(clips), BATCH):
            frames = [mfcc.mfcc_39(clip) for clip in clips[first : first + BATCH]]
            features_BxTxD, real_BxT = self._padded(frames)
            log_probs_BxTxV = np.asarray(_log_probs(self._params, features_BxTxD, real_BxT))
            results += [log_probs_BxTxV[i, : len(frames_TxD)] for i, frames_TxD in enumerate(frames)]
        return results

    def _padded(self, frames):
        n_frames = -(-max(map(len, frames)) // FRAMES) * FRAMES
        features_BxTxD = np.zeros((BATCH, n_frames, mfcc.DIM), np.float32)
        real_BxT = np.zeros((BATCH, n_frames), np.float32)
        for i, frames_TxD in enumerate(frames):
            features_BxTxD[i, : len(frames_TxD)] = (frames_TxD - self._mean_D) / self._deviation_D
            real_BxT[i, : len(frames_TxD)] = 1
        return features_BxTxD, real_BxT

    def _train(self, frames, tokens, epochs):
        order = np.argsort([len(frames_TxD) for frames_TxD in frames])
        batches = [order[i : i + BATCH] for i in range(0, len(order), BATCH)]
        params, rng = _init(jax.random.key(0), len(self.labels)), np.random.default_rng(0)
        optimizer = optax.adamw(optax.cosine_decay_schedule(4e-3, epochs * len(batches) + 1), b2=0.98)
        state = optimizer.init(params)

        @jax.jit
        def step(params, state, batch):
            gradient = jax.grad(_loss)(params, *batch)
            updates, state = optimizer.update(gradient, state, params)
            return optax.apply_updates(params, updates), state

        for _ in range(epochs):
            for i in rng.permutation(len(batches)):
                chosen = batches[i]
                n_tokens = -(-max(len(tokens[j]) for j in chosen) // TOKENS) * TOKENS
                tokens_BxS, padding_BxS = np.zeros((BATCH, n_tokens), np.int32), np.ones((BATCH, n_tokens), np.float32)
                for row, j in enumerate(chosen):
                    tokens_BxS[row, : len(tokens[j])], padding_BxS[row, : len(tokens[j])] = tokens[j], 0
                batch = (*self._padded([frames[j] for j in chosen]), tokens_BxS, padding_BxS)
                params, state = step(params, state, batch)
        return params


def _init(key, n_labels: int) -> dict:
    first, last, layers = jax.random.split(key, 3)
    return {
        "first": jax.random.normal(first, (mfcc.DIM, WIDTH)) / mfcc.DIM**0.5,
        "layers": jax.random.normal(layers, (LAYERS, KERNEL * WIDTH, WIDTH)) / (KERNEL * WIDTH) ** 0.5,
        "last": jax.random.normal(last, (WIDTH, n_labels)) * 0.02,
    }


@jax.jit
def _log_probs(params: dict, features_BxTxD: jax.Array, real_BxT: jax.Array) -> jax.Array:
    def layer(hidden_BxTxD, kernel):  # shifted copies and one product: XLA's own convolution is slow backwards on CPUs
        around = KERNEL // 2
        padded = jnp.pad(jax.nn.standardize(hidden_BxTxD) * real_BxT[..., None], ((0, 0), (around, around), (0, 0)))
        shifted = [padded[:, i : i + hidden_BxTxD.shape[1]] for i in range(KERNEL)]
        return hidden_BxTxD + jax.nn.gelu(jnp.concatenate(shifted, axis=-1) @ kernel), None

    hidden_BxTxD, _ = jax.lax.scan(layer, features_BxTxD @ params["first"], params["layers"])
    return jax.nn.log_softmax(jax.nn.standardize(hidden_BxTxD) @ params["last"])


def _loss(params, features_BxTxD, real_BxT, tokens_BxS, padding_BxS):
    log_probs_BxTxV = _log_probs(params, features_BxTxD, real_BxT)
    return optax.ctc_loss(log_probs_BxTxV, 1 - real_BxT, tokens_BxS, padding_BxS).sum() / real_BxT.sum()


class _Hama:
    """The phoneme model of the package `hama` as a `CtcModel`; its word boundary is "|"."""

    frame_rate = 50.0

    def __init__(self):
        from hama.asr import ASRModel

        self._model = ASRModel()
        self.labels = ["|" if label == "<wb>" else label for label in self._model.decoder_tokens]
        self.blank = self._model.blank_id

    def log_probs(self, clips):
        def one(clip):
            feeds = {"waveform": clip[None], "waveform_lengths": np.array([len(clip)])}
            log_probs_1xTxV, lengths = self._model.session.run(["log_probs", "out_lengths"], feeds)
            return log_probs_1xTxV[0, : int(lengths[0])]

        return [one(clip) for clip in clips]


class _PhoneAligner(CtcAligner):
    """Spells words by PocketSphinx's dictionary, in the phones of `_Hama`."""

    def __init__(self, sphinx: PocketSphinxAligner):
        super().__init__(_Hama())
        self._lookup = sphinx._decoder.lookup_word

    def spell(self, text, language="en"):
        labels, tokens, owners = {label: i for i, label in enumerate(self.model.labels)}, [], []
        for number, item in enumerate(text.split()):
            for word in spoken_words(item):
                phones = re.sub(r"\d", "", self._lookup(word) or pronounce(word)).split()
                tokens += [labels["|"]] * bool(tokens) + [labels[ARPABET[phone]] for phone in phones]
                owners += [-1] * (len(tokens) - len(phones) - len(owners)) + [number] * len(phones)
        return tokens, owners
