"""Small vocoders for tests, and the settings that the published files would have of them."""

import functools

import jax
import torch

from jaxslm.acoustic.vocoder import Conditions, Vocoder, VocoderConfig
from jaxslm.benchmarks.vocoder_torch import TorchVocoder

RATIOS, KERNELS, CHANNELS, BLOCK_KERNELS, DILATIONS = (5, 4), (11, 8), 16, (3, 7), ((1, 3), (2,))
HOP, RATE, UNITS = 20, 1000, 9
GENERATOR = dict(
    ratios=RATIOS, kernels=KERNELS, channels=CHANNELS, block_kernels=BLOCK_KERNELS, dilations=DILATIONS
)  # fmt: skip


def config(**changes) -> VocoderConfig:
    fields = dict(sample_rate=RATE, frame_rate=50.0, n_units=UNITS, dim=8, generator=GENERATOR)
    return VocoderConfig(**fields | dict(durations=dict(hidden=6)) | changes)


def make(**changes) -> Vocoder:
    return jax.jit(functools.partial(Vocoder, config(**changes)))(jax.random.key(0))


def settings(**changes) -> dict:
    """Of config.json beside a published file."""
    return (
        dict(
            sampling_rate=RATE,
            code_hop_size=HOP,
            num_embeddings=UNITS,
            embedding_dim=8,
            model_in_dim=8,
            resblock="1",
            upsample_rates=list(RATIOS),
            upsample_kernel_sizes=list(KERNELS),
            upsample_initial_channel=CHANNELS,
            resblock_kernel_sizes=list(BLOCK_KERNELS),
            resblock_dilation_sizes=[list(each) for each in DILATIONS],
            dur_predictor_params=dict(
                encoder_embed_dim=8, var_pred_hidden_dim=6, var_pred_kernel_size=3, var_pred_dropout=0.5
            ),
        )
        | changes
    )


CONDITIONED = dict(
    multispkr="from_input_file", num_speakers=3, multistyle="from_input_file", num_styles=4, num_f0_tokens=5,
    num_style_tokens=6, f0_hop_size=2 * HOP, style_hop_size=5 * HOP,
)  # fmt: skip


def reference(seed: int = 0, **changes) -> TorchVocoder:
    """In torch, with weights that make loud and varied sound, and weight norm whose sizes are not those of the
    directions.
    """
    torch.manual_seed(seed)
    model = TorchVocoder(settings(**changes)).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith("original0"):
                value *= 1.3
            elif name.endswith("dur_predictor.proj.bias"):
                value += 1.2
    return model


@jax.jit
def sound(model: Vocoder, units_BxT, frames_B=None, **conditions):
    """The model, compiled."""
    return model(units_BxT, frames_B, Conditions(**conditions))
