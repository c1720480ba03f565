"""A `CtcModel` from the Hugging Face folder of a ...ForCTC model: wav2vec 2.0, HuBERT, WavLM, data2vec, MMS.

Shape letters: B clips of a batch, N samples, T frames, V labels.
"""

from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from jaxslm.hf.speech import load_speech_encoder
from jaxslm.models.speech_encoder import SpeechEncoder
from jaxslm.units.ctc_labels import read_labels
from jaxslm.units.neural_encoder import NeuralEncoder


class NeuralCtc(NeuralEncoder):
    """See `CtcModel`; clips run in the buckets and batches of `NeuralEncoder`.

    Args:
      folder: config.json, vocab.json and safetensors, of MMS also adapter.LANGUAGE.safetensors.
      language: of an MMS model ("eng").
    Raises:
      ValueError: files that are missing or do not belong together; see `load_speech_encoder` and `read_labels`.
    """

    def __init__(self, folder: str | Path, language: str = ""):
        self._language = language
        labels, self.blank = read_labels(folder, language)
        super().__init__(str(folder), -1)
        if len(labels) > self.config.vocab_size:
            raise ValueError(
                f"{Path(folder) / 'vocab.json'} has {len(labels)} labels and the CTC head {self.config.vocab_size}: "
                "they do not belong together; copy both from one model"
            )
        self.labels = labels + [""] * (self.config.vocab_size - len(labels))

    def _load(self, layer: int, dtype: str, crop: bool) -> SpeechEncoder:
        return load_speech_encoder(self.folder, layer=layer, dtype=dtype, ctc=True, language=self._language)

    @staticmethod
    def _outputs(model: SpeechEncoder, samples_BxN: jax.Array, lengths_B: jax.Array, head: None) -> jax.Array:
        return jax.nn.log_softmax(model.logits(model(samples_BxN, lengths_B)[0]), axis=-1)

    def log_probs(self, clips: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Log-probabilities, float32 [T, V], of each clip."""
        return self.encode(clips)
