"""The published unit vocoder in torch, written anew under the names of its state dict: what `unit_vocoder.py` is
measured against, and what the tests compare with.

Sources of the architecture: HiFi-GAN (models.py, V1), speech-resynthesis (models.py, and the duration predictor and
styles of its examples), SpiRit-LM (hifigan_vocoder.py).

Legend: B rows, T frames, U units, C channels.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.functional import leaky_relu
from torch.nn.utils import parametrizations


def _normed(conv: nn.Module, normed: bool) -> nn.Module:
    return parametrizations.weight_norm(conv, dim=0) if normed else conv


def _same(width_in: int, width: int, kernel: int, dilation: int, normed: bool) -> nn.Module:
    conv = nn.Conv1d(width_in, width, kernel, dilation=dilation, padding=(kernel - 1) // 2 * dilation)
    return _normed(conv, normed)


class _Block(nn.Module):
    def __init__(self, width: int, kernel: int, dilations, normed: bool):
        super().__init__()
        self.convs1 = nn.ModuleList([_same(width, width, kernel, d, normed) for d in dilations])
        self.convs2 = nn.ModuleList([_same(width, width, kernel, 1, normed) for _ in dilations])

    def forward(self, x_BxCxT):
        for first, second in zip(self.convs1, self.convs2, strict=True):
            x_BxCxT = x_BxCxT + second(leaky_relu(first(leaky_relu(x_BxCxT, 0.1)), 0.1))
        return x_BxCxT


class _Durations(nn.Module):
    def __init__(self, dim: int, hidden: int, kernel: int):
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv1d(dim, hidden, kernel, padding=(kernel - 1) // 2), nn.ReLU())
        self.ln1 = nn.LayerNorm(hidden)
        self.conv2 = nn.Sequential(nn.Conv1d(hidden, hidden, kernel, padding=(kernel - 1) // 2), nn.ReLU())
        self.ln2 = nn.LayerNorm(hidden)
        self.proj = nn.Linear(hidden, 1)

    def forward(self, x_BxUxC):
        x = self.ln1(self.conv1(x_BxUxC.transpose(1, 2)).transpose(1, 2))
        return self.proj(self.ln2(self.conv2(x.transpose(1, 2)).transpose(1, 2)))[..., 0]


class TorchVocoder(nn.Module):
    """settings: of the JSON file beside a published checkpoint. normed: with weight norm, as in training."""

    def __init__(self, settings: Mapping[str, Any], normed: bool = True):
        super().__init__()
        h, dim, width = settings, settings["embedding_dim"], settings["upsample_initial_channel"]
        self.dict = nn.Embedding(h["num_embeddings"], dim)
        counts = dict(
            f0_dict=h.get("num_f0_tokens"), style_dict=h.get("num_style_tokens"),
            spkr=h.get("multispkr") and h.get("num_speakers", 200), style=h.get("multistyle") and h["num_styles"],
        )  # fmt: skip
        for name, count in counts.items():
            setattr(self, name, nn.Embedding(count, dim) if count else None)
        if fields := h.get("dur_predictor_params"):
            hidden, kernel = fields["var_pred_hidden_dim"], fields["var_pred_kernel_size"]
            self.dur_predictor = _Durations(dim, hidden, kernel)
        self.conv_pre = _same(dim * (1 + sum(map(bool, counts.values()))), width, 7, 1, normed)
        self.ups, self.resblocks = nn.ModuleList(), nn.ModuleList()
        for ratio, kernel in zip(h["upsample_rates"], h["upsample_kernel_sizes"], strict=True):
            up = nn.ConvTranspose1d(width, width // 2, kernel, ratio, padding=(kernel - ratio) // 2)
            self.ups.append(_normed(up, normed))
            width //= 2
            for k, dilations in zip(h["resblock_kernel_sizes"], h["resblock_dilation_sizes"], strict=True):
                self.resblocks.append(_Block(width, k, dilations, normed))
        self.conv_post = _same(width, 1, 7, 1, normed)

    def forward(self, units_BxT, *, f0_code=None, style_code=None, spkr=None, style=None):
        """Samples [B, N]; codes one a frame, spkr and style [B]."""
        x = self.dict(units_BxT)
        given = [(self.f0_dict, f0_code), (self.style_dict, style_code), (self.spkr, spkr), (self.style, style)]
        for table, ids in given:
            if table is not None:
                rows = table(ids if ids.ndim == 2 else ids[:, None])
                x = torch.cat([x, rows.expand(-1, units_BxT.shape[1], -1)], dim=2)
        x = self.conv_pre(x.transpose(1, 2))
        each = len(self.resblocks) // len(self.ups)
        for i, up in enumerate(self.ups):
            x = up(leaky_relu(x, 0.1))
            x = sum(block(x) for block in self.resblocks[i * each : (i + 1) * each]) / each
        return torch.tanh(self.conv_post(leaky_relu(x)))[:, 0]

    def frames(self, units_BxU):
        """Whole frames of deduplicated units, by the published rule."""
        return torch.clamp(torch.round(torch.exp(self.dur_predictor(self.dict(units_BxU))) - 1).long(), min=1)

    def published_state(self) -> dict[str, torch.Tensor]:
        """The state dict with weight norm spelled `weight_g`, `weight_v`, as published files have it."""
        spelling = {
            ".parametrizations.weight.original0": ".weight_g",
            ".parametrizations.weight.original1": ".weight_v",
        }
        state = {}
        for name, value in self.state_dict().items():
            for old, new in spelling.items():
                name = name.replace(old, new)
            state[name] = value
        return state
