"""The real weights of Whisper tiny.en on real or synthetic speech."""

import os
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from jaxslm.audio.io import read_audio
from jaxslm.hf.speech import load_speech_encoder
from tests.hf.whisper_weights import ctranslate2_folder, write_whisper

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
CORPUS = Path(os.environ.get("JAXSLM_CORPORA", "")) / "asterisk_en"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_whisper(tmp_path_factory.mktemp("whisper-tiny.en"))


@pytest.fixture(scope="module")
def clip() -> np.ndarray:
    """A recorded clip where JAXSLM_CORPORA has some, else synthetic speech."""
    if recorded := sorted(CORPUS.rglob("*.flac")):
        return read_audio(recorded[len(recorded) // 2], where="asterisk_en").samples
    pytest.importorskip("espeakng_loader", reason="the demo extra is not installed")
    from jaxslm.data.sources.espeak import Synthesizer

    synthesizer = Synthesizer()
    spoken = synthesizer.speak("Please enter your password, then press the pound key.", "en-us")[0]
    return read_audio((spoken, synthesizer.rate), where="espeak-ng").samples


def _mels(clip: np.ndarray) -> np.ndarray:
    return transformers.WhisperFeatureExtractor()(clip, sampling_rate=16_000).input_features


def _features(folder: Path, clip: np.ndarray, layer: int = -1) -> tuple[np.ndarray, int]:
    """(the features of a whole window of 30 s, how many frames hold the clip)."""
    samples = np.pad(clip, (0, 480_000 - len(clip)))[None]
    encoder = load_speech_encoder(folder, layer=layer)
    features, _ = jax.jit(lambda e, x, n: e(x, n))(encoder, samples, np.array([480_000], np.int32))
    return np.asarray(features[0]), encoder.config.frames(len(clip))


def test_features_equal_those_of_transformers(folder, clip):
    model = transformers.WhisperModel(transformers.WhisperConfig.from_pretrained(folder)).eval()
    state = {
        k.removeprefix("model.encoder."): torch.tensor(v) for k, v in load_file(folder / "model.safetensors").items()
    }
    state.pop("model.decoder.embed_tokens.weight")
    model.encoder.load_state_dict({name: value.float() for name, value in state.items()})
    with torch.no_grad():
        expected = model.encoder(torch.tensor(_mels(clip)), output_hidden_states=True).hidden_states
    for layer in (2, 4):
        features, n = _features(folder, clip, layer)
        # Silence alone is worth little: there float32 of transformers strays from float64 by as much as 4e-4.
        np.testing.assert_allclose(features[:n], expected[layer][0, :n].numpy(), atol=1e-4, rtol=0)


def test_features_equal_those_of_the_engine_that_runs_these_weights(folder, clip):
    ctranslate2 = pytest.importorskip("ctranslate2", reason="ctranslate2 is not installed: pip install ctranslate2")
    engine = ctranslate2.models.Whisper(str(ctranslate2_folder()), device="cpu", compute_type="float32")
    expected = np.array(engine.encode(ctranslate2.StorageView.from_array(_mels(clip))))[0]
    features, n = _features(folder, clip)
    np.testing.assert_allclose(features[:n], expected[:n], atol=1e-4, rtol=0)
