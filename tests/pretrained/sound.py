"""A task on sounds that are made here: the pitch of voices."""

from __future__ import annotations

import torch
from torch import nn

from tests.pretrained.task import Data, Task, asked
from tests.zoo import pretrained

RATE = 16000
SAMPLES = RATE // 2
HOP = RATE // 50  # samples a frame


def voices(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Sounds (count, samples) and the pitch of every frame in semitones (count, frames): tones between 80 and 600 Hz
    that glide and quaver, with overtones of random strength under a random formant, and noise."""
    t = torch.arange(SAMPLES) / RATE
    start = 80 * 7.5 ** torch.rand(count, 1)
    glide = torch.randn(count, 1) * 2  # semitones a second
    quaver = torch.rand(count, 1) * 0.4 * torch.sin(2 * torch.pi * (4 + 3 * torch.rand(count, 1)) * t)
    pitch = start * 2 ** ((glide * t + quaver) / 12)
    phase = 2 * torch.pi * pitch.cumsum(1) / RATE
    formant = 300 + 1500 * torch.rand(count, 1)
    sound = torch.zeros(count, SAMPLES)
    for k in range(1, 13):
        heard = (pitch * k < RATE / 2) / (1 + ((pitch * k - formant) / 600) ** 2) * (0.3 + torch.rand(count, 1))
        sound += heard * torch.sin(k * phase + 6.3 * torch.rand(count, 1))
    sound /= sound.square().mean(1, keepdim=True).sqrt()
    sound += torch.randn_like(sound) * 10 ** (-1.5 * torch.rand(count, 1))  # 0 to 30 dB
    return sound / 10, 69 + 12 * (pitch[:, ::HOP] / 440).log2()


def _pitch() -> Task:
    def data(_: nn.Module) -> Data:
        whole = pretrained.pitch().eval()  # its transform of the sound, which is not trained, runs once
        semitones = pretrained.module("pesto.utils.reduce_activations").reduce_activations

        def frames(sounds: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                return torch.cat([whole.crop_cqt(whole.preprocessor(s).flatten(0, 1)) for s in sounds.split(20)])

        (train, _pitches), (test, truth) = voices(120), voices(80)
        train, heard = frames(train), frames(test)
        inner = slice(3, truth.shape[1] - 3)  # frames that lie within the sound

        def score(net: nn.Module) -> float:
            shares = asked(task, net, heard).exp().roll(-round(float(whole.shift) * whole.bins_per_semitone), -1)
            found = semitones(shares, whole.reduction).view(len(truth), -1)[:, : truth.shape[1]]
            return ((found - truth)[:, inner].abs() < 0.5).float().mean().item()

        return Data(train, score)

    task = Task(
        "pesto_encoder",
        "pesto-pitch",
        "the pitch of 80 sung tones with noise, made here; frames within 50 cents",
        lambda: pretrained.pitch().encoder,
        data,
        lambda out: out.clamp_min(1e-6).log(),
        steps=80,
    )
    return task


TASKS = (_pitch(),)
