"""Networks that compute in frequency space: transforms over positions, complex numbers, complex parameters."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from judge import Build, between, conv, image, of, tokens
from torch import nn

fft = torch.fft


class SpectralConv(nn.Module):
    """A weight for each of the lowest frequencies, as Fourier neural operators have (arXiv 2010.08895)."""

    def __init__(self, inputs: int, outputs: int, modes: int) -> None:
        super().__init__()
        self.out_channels, self.modes = outputs, modes
        self.low = nn.Parameter(torch.rand(inputs, outputs, modes, modes, dtype=torch.cfloat) / outputs)
        self.high = nn.Parameter(torch.rand(inputs, outputs, modes, modes, dtype=torch.cfloat) / outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        height, width, m = x.size(-2), x.size(-1), self.modes
        f = fft.rfft2(x)
        out = torch.zeros(x.shape[0], self.out_channels, height, width // 2 + 1, dtype=f.dtype)
        out[:, :, :m, :m] = torch.einsum("bixy,ioxy->boxy", f[:, :, :m, :m], self.low)
        out[:, :, -m:, :m] = torch.einsum("bixy,ioxy->boxy", f[:, :, -m:, :m], self.high)
        return fft.irfft2(out, s=(height, width))


class NeuralOperator(nn.Module):
    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.lift, self.project, self.head = nn.Linear(3, width), nn.Linear(width, 32), nn.Linear(32, 1)
        self.spectral = nn.ModuleList(SpectralConv(width, width, 3) for _ in range(2))
        self.local = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.lift(x).permute(0, 3, 1, 2)
        for spectral, local in zip(self.spectral, self.local, strict=True):
            x = F.gelu(spectral(x) + local(x))
        return self.head(F.gelu(self.project(x.permute(0, 2, 3, 1))))  # type: ignore[no-any-return]


class GlobalFilter(nn.Module):
    """Tokens on an 8x8 grid are filtered by a complex weight per frequency and channel, held as pairs."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.embed, self.norm, self.head = nn.Linear(8, width), nn.LayerNorm(width), nn.Linear(width, 4)
        self.complex_weight = nn.Parameter(torch.randn(8, 5, width, 2))
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        b, n, c = x.shape
        y = fft.rfft2(self.norm(x).view(b, 8, 8, c), dim=(1, 2), norm="ortho")
        y = y * torch.view_as_complex(self.complex_weight)
        y = fft.irfft2(y, s=(8, 8), dim=(1, 2), norm="ortho").reshape(b, n, c)
        return self.head((x + self.down(F.gelu(self.up(y)))).mean(1))  # type: ignore[no-any-return]


class FourierUnit(nn.Module):
    """Real and imaginary parts are channels of a convolution, as fast Fourier convolutions have them."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem, self.head = conv(3, width), conv(width, 4)
        self.conv, self.norm = nn.Conv2d(2 * width, 2 * width, 1), nn.BatchNorm2d(2 * width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        f = fft.rfftn(x, dim=(-2, -1), norm="ortho")
        f = torch.stack((f.real, f.imag), dim=-1).permute(0, 1, 4, 2, 3).contiguous()
        f = F.relu(self.norm(self.conv(f.view(f.shape[0], -1, *f.shape[3:]))))
        f = f.view(f.shape[0], -1, 2, *f.shape[2:]).permute(0, 1, 3, 4, 2).contiguous()
        f = torch.complex(f[..., 0], f[..., 1])
        return self.head(fft.irfftn(f, s=x.shape[-2:], dim=(-2, -1), norm="ortho"))  # type: ignore[no-any-return]


class MixedTokens(nn.Module):
    """Tokens and channels are mixed by a transform over both: every frequency takes every channel."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.embed, self.up, self.down = nn.Linear(8, width), nn.Linear(width, 32), nn.Linear(32, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(F.gelu(self.up(fft.fft2(self.embed(x)).real)))  # type: ignore[no-any-return]


def filtered(t: torch.Tensor) -> torch.Tensor:
    return fft.ifft2(fft.fft2(t) * 1.5).real


def of_magnitudes(t: torch.Tensor) -> torch.Tensor:
    f = fft.rfft2(t)
    return fft.irfft2(torch.polar(f.abs(), f.angle()), s=t.shape[-2:])


def shifted(t: torch.Tensor) -> torch.Tensor:
    return fft.fftshift(fft.fft(t, dim=-1), dim=-1).abs()


PATTERNS: dict[str, Build] = {
    "there and back": between(filtered),
    "magnitude and angle": between(of_magnitudes),
    "shifted": between(shifted),
    "longer than the input": between(lambda t: fft.rfft(t, n=12).abs()),
    "conjugate": between(lambda t: (fft.rfft2(t) * fft.rfft2(t).conj()).real),
    "autocorrelation over channels": between(lambda t: fft.irfft(fft.rfft(t, dim=1), n=t.shape[1], dim=1), ""),
    "neural operator": of(
        NeuralOperator, "lift project spectral.0.low spectral.1.high local.0", lambda: torch.randn(2, 8, 8, 3)
    ),
    "global filter": of(GlobalFilter, "embed complex_weight up down", lambda: tokens(2, 64, 8)),
    "Fourier unit": of(FourierUnit, "stem conv head", image),
    "over tokens and channels": of(MixedTokens, "up down", tokens),
}
