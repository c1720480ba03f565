"""Small speech models of transformers with seeded random weights, saved as folders and run on single clips."""

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SMALL = dict(
    hidden_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=80,
    conv_dim=(24,) * 7,
    num_conv_pos_embeddings=16,
    num_conv_pos_embedding_groups=4,
    vocab_size=12,
)
LARGE = dict(feat_extract_norm="layer", do_stable_layer_norm=True, conv_bias=True)
WAVLM = dict(num_buckets=40, max_bucket_distance=30)  # 1 s reaches into the logarithmic and the last buckets

FAMILIES = {
    "hubert-base": ("Hubert", {}),
    "hubert-large": ("Hubert", LARGE),
    "hubert-no-projection-norm": ("Hubert", dict(feat_proj_layer_norm=False)),
    "mhubert-25hz": (
        "Hubert",
        dict(
            conv_dim=(24,) * 8,
            conv_kernel=(10, 3, 3, 3, 3, 2, 2, 2),
            conv_stride=(5, 2, 2, 2, 2, 2, 2, 2),
            conv_pos_batch_norm=True,
        ),
    ),
    "wav2vec2-base": ("Wav2Vec2", {}),
    "wav2vec2-large": ("Wav2Vec2", LARGE),
    "mms": ("Wav2Vec2", LARGE | dict(adapter_attn_dim=8)),
    "wavlm-base": ("WavLM", WAVLM),
    "wavlm-large": ("WavLM", WAVLM | LARGE | dict(conv_bias=False)),
    "data2vec": ("Data2VecAudio", dict(conv_pos_kernel_size=7, num_conv_pos_embeddings=3)),
}


def make_model(family: str, head: str = "Model", seed: int = 0):
    """A transformers model in evaluation mode; weights are larger than at initialisation, so that errors show."""
    kind, changes = FAMILIES[family]
    config = getattr(transformers, f"{kind}Config")(**(SMALL | changes))
    torch.manual_seed(seed)
    model = getattr(transformers, kind + head)(config).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.ndim > 1 and "conv_layers" not in name:
                value.normal_(0, 0.7 / value.shape[-1] ** 0.5 if value.ndim == 2 else 0.1)
            elif "conv_layers" not in name:
                value.add_(0.2 * torch.randn_like(value))
        for name, value in model.named_buffers():
            if name.endswith("running_mean"):
                value.normal_(0, 0.5)
            if name.endswith("running_var"):
                value.uniform_(0.5, 2.0)
    return model


def save_model(model, folder: Path, do_normalize: bool = True) -> Path:
    model.save_pretrained(folder)
    preprocessor = {"do_normalize": do_normalize, "sampling_rate": 16_000, "feature_size": 1}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return folder


def make_clips(lengths, seed: int = 0) -> list[np.ndarray]:
    """Clips with an offset, changing loudness and some silence."""
    rng = np.random.default_rng(seed)
    clips = []
    for n in lengths:
        envelope = np.interp(np.arange(n), np.linspace(0, n, 9), rng.uniform(0, 0.3, 9))
        clips.append((envelope * rng.normal(size=n) + 0.01).astype(np.float32))
    return clips


def pad(clips) -> tuple[np.ndarray, np.ndarray]:
    """(samples [B, N], lengths [B]); what lies beyond the clips is not silence."""
    lengths = np.array([len(clip) for clip in clips], np.int32)
    samples = np.full((len(clips), lengths.max()), 0.3, np.float32)
    for row, clip in zip(samples, clips, strict=True):
        row[: len(clip)] = clip
    return samples, lengths


def hidden_states(model, clip: np.ndarray, do_normalize: bool = True) -> list[np.ndarray]:
    """hidden_states [T, D] of one clip that is not padded, then last_hidden_state."""
    if do_normalize:
        clip = transformers.Wav2Vec2FeatureExtractor(do_normalize=True)(clip, sampling_rate=16_000).input_values[0]
    with torch.no_grad():
        out = model(torch.tensor(np.asarray(clip))[None].to(model.dtype), output_hidden_states=True)
    return [state[0].float().numpy() for state in (*out.hidden_states, out.last_hidden_state)]
