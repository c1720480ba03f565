"""EnCodec's training step in torch, as `benchmarks/codec.py` times it against ours: transformers' encoder and decoder,
a residual quantizer, the MS-STFT discriminator, hinge and feature losses, multi-scale mel and waveform distances,
balanced gradients, two Adams and a running mean of the weights.

Written to do what ours does with the same weights and samples, in the order of jaxslm/codec/adversarial.py, so that
losses can be compared step by step; every loss is tested against the published form of it elsewhere.

Legend: B batch, N samples, D features, T frames, Q levels, K codes.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

SHARES = {"mel": 2.0, "waveform": 0.1, "adversarial": 4.0, "feature": 4.0}


class Quantizer(torch.nn.Module):
    """Levels of running means; gradients pass as they are."""

    def __init__(self, codes_QxKxD: np.ndarray, decay: float):
        super().__init__()
        self.register_buffer("sums", torch.tensor(codes_QxKxD))
        self.register_buffer("usage", torch.ones(codes_QxKxD.shape[:2]))
        self.decay = decay

    def forward(self, z_BxDxT: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(values, commitment)"""
        x_NxD = z_BxDxT.mT.reshape(-1, z_BxDxT.shape[1])
        residual, total, commitments = x_NxD, torch.zeros_like(x_NxD), []
        for sums_KxD, usage_K in zip(self.sums, self.usage, strict=True):
            codes_KxD = sums_KxD / usage_K.clamp(min=1e-5)[:, None]
            with torch.no_grad():
                distances = codes_KxD.square().sum(1) - 2 * residual @ codes_KxD.T
                ids_N = distances.argmin(1)
                code_NxD = F.embedding(ids_N, codes_KxD)
                counts_K = torch.bincount(ids_N, minlength=len(codes_KxD)).to(usage_K)
                of_codes = torch.zeros_like(sums_KxD).index_add_(0, ids_N, residual)
                usage_K.lerp_(counts_K, 1 - self.decay)
                sums_KxD.lerp_(of_codes, 1 - self.decay)
            commitments.append(F.mse_loss(residual, code_NxD))
            total = total + code_NxD
            residual = residual - code_NxD
        values_NxD = x_NxD + (total - x_NxD).detach()
        return values_NxD.reshape(len(z_BxDxT), -1, x_NxD.shape[1]).mT, torch.stack(commitments).mean()


class StftSub(torch.nn.Module):
    """encodec/msstftd.py, DiscriminatorSTFT. convs: {"direction", "size", "bias"} of each, as ours has them."""

    def __init__(self, window: int, convs: list[dict[str, np.ndarray]], dilations: tuple[int, ...], slope: float):
        super().__init__()
        shapes = [dict(padding=(1, 4))]
        shapes += [dict(stride=(1, 2), dilation=(n, 1), padding=(n, 4)) for n in dilations]
        shapes += [dict(padding=(1, 1))] * 2
        self.convs = torch.nn.ModuleList(_plane(conv, shape) for conv, shape in zip(convs, shapes, strict=True))
        self.window, self.slope = window, slope
        self.register_buffer("hann", torch.hann_window(window))

    def forward(self, samples_BxN: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """(logits, features)"""
        x = torch.stft(
            samples_BxN, self.window, self.window // 4, window=self.hann, center=False, return_complex=True
        ) / self.hann.square().sum().sqrt()  # fmt: skip
        x, features = torch.stack([x.real, x.imag], dim=1).mT, []
        for conv in self.convs[:-1]:
            x = F.leaky_relu(conv(x), self.slope)
            features.append(x)
        return self.convs[-1](x), features


def _plane(conv: dict[str, np.ndarray], shape: dict[str, Any]) -> torch.nn.Module:
    direction = torch.tensor(conv["direction"].transpose(3, 2, 0, 1))
    plane = weight_norm(torch.nn.Conv2d(direction.shape[1], direction.shape[0], direction.shape[2:], **shape))
    with torch.no_grad():
        plane.parametrizations.weight.original1.copy_(direction)
        plane.parametrizations.weight.original0.copy_(torch.tensor(conv["size"])[:, None, None, None])
        plane.bias.copy_(torch.tensor(conv["bias"]))
    return plane


class Mel(torch.nn.Module):
    """audiocraft's multi-scale mel distance, see `spectral_losses.encodec_mel`."""

    def __init__(self, bands: Mapping[int, np.ndarray]):
        super().__init__()
        self.windows = tuple(bands)
        for window, mel in bands.items():
            self.register_buffer(f"mel_{window}", torch.tensor(mel))
            self.register_buffer(f"hann_{window}", torch.hann_window(window))

    def _powers(self, samples_BxN: torch.Tensor, window: int) -> torch.Tensor:
        hop, hann = window // 4, getattr(self, f"hann_{window}")
        side = (window - hop) // 2
        padded = F.pad(F.pad(samples_BxN, (side, side), "reflect"), (0, -samples_BxN.shape[1] % hop))
        spectrum = torch.stft(padded, window, hop, window=hann, center=False, return_complex=True)
        powers = spectrum.real.square() + spectrum.imag.square()
        return (powers / hann.square().sum()).mT @ getattr(self, f"mel_{window}")

    def forward(self, fake_BxN: torch.Tensor, real_BxN: torch.Tensor) -> torch.Tensor:
        total = 0.0
        for window in self.windows:
            x, y = self._powers(fake_BxN, window), self._powers(real_BxN, window)
            total = total + F.l1_loss(x, y) + F.mse_loss((1e-5 + x).log10(), (1e-5 + y).log10())
        return total / (2 * len(self.windows))


class Training:
    """All that a step needs; `step(samples_BxN)` gives its losses.

    codec: an `EncodecModel`. adam: fields of torch.optim.Adam. average_decay: of the running mean of the weights.
    """

    def __init__(self, codec, quantizer: Quantizer, subs: list[StftSub], mel: Mel, adam: dict, average_decay: float):
        self.encoder, self.decoder, self.quantizer = codec.encoder, codec.decoder, quantizer
        self.subs, self.mel = torch.nn.ModuleList(subs), mel
        parameters = (*self.encoder.parameters(), *self.decoder.parameters())
        self.generated = [parameter for parameter in parameters if parameter.requires_grad]
        self.average = [p.detach().clone() for p in self.generated]
        self.average_decay = average_decay
        self.adams = [torch.optim.Adam(part, **adam) for part in (self.generated, self.subs.parameters())]
        self.norms = dict.fromkeys(SHARES, (0.0, 0.0))

    def step(self, real_BxN: torch.Tensor) -> dict[str, float]:
        values, commitment = self.quantizer(self.encoder(real_BxN[:, None]))
        fake = self.decoder(values)[:, 0, : real_BxN.shape[1]]
        of_subs = self._move_discriminators(fake.detach(), real_BxN)
        losses = {"mel": self.mel(fake, real_BxN), "waveform": F.l1_loss(fake, real_BxN)}
        losses |= self._judge(fake, real_BxN)
        gradients = {}
        for i, name in enumerate(SHARES):
            (gradients[name],) = torch.autograd.grad(losses[name], fake, retain_graph=i + 1 < len(SHARES))
        self.adams[0].zero_grad(set_to_none=True)
        torch.autograd.backward([fake, commitment], [self._balance(gradients), torch.ones(())])
        self.adams[0].step()
        with torch.no_grad():
            torch._foreach_lerp_(self.average, self.generated, 1 - self.average_decay)
        return {n: v.item() for n, v in losses.items()} | {"commitment": commitment.item(), "discriminators": of_subs}

    def _move_discriminators(self, fake: torch.Tensor, real: torch.Tensor) -> float:
        loss = 0.0
        for sub in self.subs:
            loss = loss + F.relu(1 + sub(fake)[0]).mean() + F.relu(1 - sub(real)[0]).mean()
        loss = loss / len(self.subs)
        self.adams[1].zero_grad(set_to_none=True)
        loss.backward()
        self.adams[1].step()
        return loss.item()

    def _judge(self, fake: torch.Tensor, real: torch.Tensor) -> dict[str, torch.Tensor]:
        adversarial = feature = 0.0
        self.subs.requires_grad_(False)  # only the samples need gradients
        for sub in self.subs:
            with torch.no_grad():
                wanted = sub(real)[1]
            logits, features = sub(fake)
            adversarial = adversarial - logits.mean()
            feature = feature + sum(map(F.l1_loss, features, wanted)) / len(wanted)
        self.subs.requires_grad_(True)
        return {"adversarial": adversarial / len(self.subs), "feature": feature / len(self.subs)}

    def _balance(self, gradients: dict[str, torch.Tensor]) -> torch.Tensor:
        """encodec/balancer.py: each gradient gets its share of a norm of 1 by the running mean of its own."""
        total = 0.0
        for name, gradient in gradients.items():
            sums, weights = self.norms[name]
            norm = gradient.norm(dim=1).mean().item()
            self.norms[name] = sums, weights = 0.999 * sums + norm, 0.999 * weights + 1
            total = total + SHARES[name] / sum(SHARES.values()) / (1e-12 + sums / weights) * gradient
        return total
