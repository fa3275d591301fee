"""What a model is worth: accuracy, size and speed, measured on its ONNX file in onnxruntime."""

import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median

import numpy as np
import onnxruntime
import torch
from data import Split
from torch import nn

import amct_pytorch as amct

BATCH = 100  # images at a time, for accuracy and for latency
ROUNDS = 50


def table(models: Mapping[str, nn.Module], folder: Path, test: Split) -> str:
    """One row per model: test accuracy, parameters, MACs and latency per image, size of the ONNX file."""
    images, digits = test[0].numpy(), test[1].numpy()
    rows, sessions = [], {}
    for name, model in models.items():
        prefix = folder / name.replace(" ", "_").replace(",", "").replace(":", "of")
        names = {"input_names": ["image"], "output_names": ["logits"]}
        amct.save_prune_retrain_model(model, prefix, test[0][:1], **names, dynamic_axes={"image": {0: "batch"}})
        file = Path(f"{prefix}_deploy_model.onnx")
        sessions[name] = _session(file)
        accuracy = np.mean(
            [
                _predict(sessions[name], images[i : i + BATCH]) == digits[i : i + BATCH]
                for i in range(0, len(digits), BATCH)
            ]
        )
        parameters = sum(int(parameter.count_nonzero()) for parameter in model.parameters())
        rows.append(
            [
                name,
                f"{accuracy:.1%}",
                f"{parameters:,}",
                f"{_macs(model, test[0][:1]):,}",
                f"{file.stat().st_size / 1000:.0f} kB",
            ]
        )
    for row, latency in zip(rows, _latencies(sessions, images[:BATCH]), strict=True):
        row.append(f"{1e6 * latency / BATCH:.0f} us")
    head = ["", "accuracy", "parameters not 0", "MACs", "ONNX file", "CPU latency"]
    return _aligned([head, *rows])


def _session(file: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def _predict(session: onnxruntime.InferenceSession, images: np.ndarray) -> np.ndarray:
    return session.run(["logits"], {"image": images})[0].argmax(1)


def _latencies(sessions: Mapping[str, onnxruntime.InferenceSession], images: np.ndarray) -> list[float]:
    """The median seconds that each takes for the images; they take turns, so that all meet the same disturbances."""
    seconds: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(ROUNDS):
        for name, session in sessions.items():
            start = time.perf_counter()
            _predict(session, images)
            seconds[name].append(time.perf_counter() - start)
    return [median(times) for times in seconds.values()]


def _macs(model: nn.Module, image: torch.Tensor) -> int:
    """Multiplications for one image in convolutions and linear layers, zeros included."""
    counts = []

    def count(layer: nn.Module, _: object, output: torch.Tensor) -> None:
        counts.append(output.numel() * layer.weight[0].numel())

    layers = [layer for layer in model.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    with torch.no_grad():
        model.eval()(image)
    for hook in hooks:
        hook.remove()
    return sum(counts)


def _aligned(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        )
        for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])
