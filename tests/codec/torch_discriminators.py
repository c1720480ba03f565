"""The published discriminators in torch, written out layer by layer, with weights taken from ours."""

import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.utils.parametrizations import weight_norm


def conv_like(plane, **options):
    """A torch convolution with weight norm and the weights of a `PlaneConv`; 1-D when asked with `flat=True`."""
    flat = options.pop("flat", False)
    direction = np.array(plane.direction[...])  # [kt, kf, I / G, O]
    kt, kf, d_group, d_out = direction.shape
    kind, kernel = (torch.nn.Conv1d, kt) if flat else (torch.nn.Conv2d, (kt, kf))
    conv = weight_norm(kind(d_group * options.get("groups", 1), d_out, kernel, **options))
    v = direction.transpose(3, 2, 0, 1)
    with torch.no_grad():
        conv.parametrizations.weight.original1.copy_(torch.tensor(v[..., 0] if flat else v))
        size = torch.tensor(np.array(plane.size[...]))
        conv.parametrizations.weight.original0.copy_(size.reshape(conv.parametrizations.weight.original0.shape))
        conv.bias.copy_(torch.tensor(np.array(plane.bias[...])))
    return conv


def ours(x):
    """Torch's [B, C, T, F] or [B, C, T] in our layout."""
    x = x.detach().numpy()
    return x.transpose(0, 2, 3, 1) if x.ndim == 4 else x.transpose(0, 2, 1)[:, :, None]


def chain(x, layers, slope):
    features = []
    for layer in layers:
        x = F.leaky_relu(layer(x), slope)
        features.append(x)
    return features


def period(sub, x_BxN, slope=0.1):
    """HiFi-GAN models.py, DiscriminatorP."""
    p, x = sub.period, x_BxN[:, None]
    if x.shape[-1] % p:
        x = F.pad(x, (0, p - x.shape[-1] % p), "reflect")
    x = x.reshape(len(x), 1, -1, p)
    convs = list(sub.layers.convs)
    layers = [conv_like(c, stride=(3, 1), padding=(2, 0)) for c in convs[:-1]] + [conv_like(convs[-1], padding=(2, 0))]
    features = chain(x, layers, slope)
    return conv_like(sub.post, padding=(1, 0))(features[-1]), features


def scale(sub, x_BxN, layers, slope=0.1):
    """HiFi-GAN models.py, DiscriminatorS behind its mean pools."""
    x = x_BxN[:, None]
    for _ in range(sub.halvings):
        x = F.avg_pool1d(x, 4, 2, padding=2)
    convs = [
        conv_like(c, flat=True, stride=stride, groups=groups, padding=(kernel - 1) // 2)
        for c, (_, kernel, stride, groups) in zip(sub.layers.convs, layers, strict=True)
    ]
    features = chain(x, convs, slope)
    return conv_like(sub.post, flat=True, padding=1)(features[-1]), features


def spectrum(x_BxN, n_fft, **options):
    x = torch.stft(x_BxN, n_fft, n_fft // 4, window=torch.hann_window(n_fft), return_complex=True, **options)
    return torch.stack([x.real, x.imag], dim=1).transpose(2, 3)  # [B, 2, T, F]


def ms_stft(sub, x_BxN, dilations, slope=0.2):
    """encodec/msstftd.py, DiscriminatorSTFT; torchaudio's normalized divides by the window's 2-norm."""
    x = spectrum(x_BxN, sub.window, center=False) / torch.hann_window(sub.window).square().sum().sqrt()
    first, *middle, last = sub.layers.convs
    convs = [conv_like(first, padding=(1, 4))]
    for c, dilation in zip(middle, dilations, strict=True):
        convs.append(conv_like(c, stride=(1, 2), dilation=(dilation, 1), padding=(dilation, 4)))
    features = chain(x, [*convs, conv_like(last, padding=(1, 1))], slope)
    return conv_like(sub.post, padding=(1, 1))(features[-1]), features


def bands(sub, x_BxN, fractions, slope=0.1):
    """dac/model/discriminator.py, MRD, with the padding of audiotools' match_stride."""
    w, hop = sub.window, sub.window // 4
    right, pad = -x_BxN.shape[-1] % hop, (w - hop) // 2
    x = spectrum(F.pad(x_BxN[:, None], (pad, pad + right), "reflect")[:, 0], w, center=True)[:, :, 2:-2]
    features, ends = [], []
    n = w // 2 + 1
    for (low, high), stack in zip(fractions, sub.stacks, strict=True):
        strides = [(1, 1), (1, 2), (1, 2), (1, 2)]
        convs = [conv_like(c, stride=s, padding=(1, 4)) for c, s in zip(list(stack.convs)[:-1], strides, strict=True)]
        convs.append(conv_like(stack.convs[-1], padding=(1, 1)))
        out = chain(x[..., int(low * n) : int(high * n)], convs, slope)
        features += out
        ends.append(out[-1])
    return conv_like(sub.post, padding=(1, 1))(torch.cat(ends, dim=-1)), features


def residual_stft(sub, x_BxN, slope=0.3):
    """The SoundStream paper, section III-D and figure 4: (time, frequency) strides (1, 2) and (2, 2) in turn."""
    x = spectrum(x_BxN, sub.window, center=True)[..., :-1]
    x = F.leaky_relu(conv_like(sub.first, padding=3)(x), slope)
    features = [x]
    for i, unit in enumerate(sub.units):
        stride = (1 + i % 2, 2)
        y = F.leaky_relu(conv_like(unit.first, padding=1)(x), slope)
        y = conv_like(unit.second, stride=stride, padding=1)(y)
        skip = conv_like(unit.skip, stride=stride)(x)
        x = F.leaky_relu(y + skip[:, :, : y.shape[2], : y.shape[3]], slope)
        features.append(x)
    return conv_like(sub.post)(x), features
