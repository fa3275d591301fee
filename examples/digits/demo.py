"""The whole life of a sparse model, on handwritten digits: train, prune, retrain (interrupted), restore, save."""

import subprocess
import sys
import time
from pathlib import Path

import torch
from data import load
from measure import table
from model import DigitNet
from torch import nn
from train import STOPPED

import amct_pytorch as amct

HERE = Path(__file__).parent
DENSE_EPOCHS, EPOCHS = 9, 7
HALF_WAY = EPOCHS * 40 // 2 + 7  # batches; no checkpoint is written there, so some of the work is done again
KINDS = {"half the channels": HERE / "channels.cfg", "2:4": HERE / "nm.cfg"}


def say(text: str) -> None:
    print(f"\n== {text}", flush=True)


def train(folder: Path, *options: object) -> int:
    return subprocess.run([sys.executable, HERE / "train.py", folder, *map(str, options)], check=False).returncode


def expect(code: int, wanted: int) -> None:
    if code != wanted:
        sys.exit(f"train.py ended with code {code}, {wanted} was expected: see its output above")


def retrain(config: Path, folder: Path) -> None:
    say(f"Make it sparse by {config.name} and train; the process ends abruptly half way")
    options = ("--config", config, "--epochs", EPOCHS)
    expect(train(folder, *options, "--stop-after", HALF_WAY), STOPPED)
    done = torch.load(folder / f"{config.stem}.pth", weights_only=True)["step"]
    say(f"Stopped after {HALF_WAY} batches, {done} are in the checkpoint; the same command goes on from there")
    expect(train(folder, *options), 0)


def models(folder: Path, example: torch.Tensor) -> dict[str, nn.Module]:
    """Dense, and each kind of sparsity before and after retraining, from the files of the training runs."""
    dense = DigitNet()
    dense.load_state_dict(torch.load(folder / "dense.pth", weights_only=True)["model"])
    found: dict[str, nn.Module] = {"dense": dense}
    for name, config in KINDS.items():
        record, checkpoint = folder / f"{config.stem}.record", folder / f"{config.stem}.pth"
        found[f"{name}, not retrained"] = amct.create_prune_retrain_model(
            dense, example, config, folder / "again.record"
        )
        found[f"{name}, retrained"] = amct.restore_prune_retrain_model(
            DigitNet(), example, record, config, checkpoint, "model"
        )
    return found


def main() -> None:
    started = time.monotonic()
    folder = Path(sys.argv[1])
    for name in ["dense"] + [config.stem for config in KINDS.values()]:
        (folder / f"{name}.pth").unlink(missing_ok=True)  # a finished run would be taken for an interrupted one
    say("Train a dense network")
    expect(train(folder, "--epochs", DENSE_EPOCHS), 0)
    for config in KINDS.values():
        retrain(config, folder)
    say("Save as ONNX, run in onnxruntime (one thread)")
    _, test = load()
    print(table(models(folder, test[0][:1]), folder, test))
    print(
        "\nMACs and latency are per image. MACs count multiplications by zero too, as a CPU does them all: 2:4 is for"
        f"\nhardware with sparse matrix units. {time.monotonic() - started:.0f} s in all; the files are in {folder}."
    )


if __name__ == "__main__":
    main()
