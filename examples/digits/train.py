"""Train the digit network, dense or sparse. Run again after an interruption, it goes on as if there had been none.

python train.py out                       # dense: leaves out/dense.pth
python train.py out --config channels.cfg # sparse, from out/dense.pth: leaves out/channels.pth and out/channels.record
"""

import argparse
import logging
import os
from pathlib import Path

import torch
from data import load
from model import DigitNet
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

import amct_pytorch as amct

BATCH = 100
SAVE_EVERY = 10  # batches
STOPPED = 75  # exit code of --stop-after, to be told from an error's


def build(config: Path | None, folder: Path, checkpoint: Path) -> nn.Module:
    """The model to train: dense, made sparse just now, or sparse as the interrupted run left it."""
    model, example = DigitNet(), torch.zeros(1, 1, 28, 28)
    if config is None:
        if checkpoint.exists():
            model.load_state_dict(torch.load(checkpoint, weights_only=True)["model"])
        return model
    record = folder / f"{config.stem}.record"
    if checkpoint.exists():
        return amct.restore_prune_retrain_model(model, example, record, config, checkpoint, "model")
    model.load_state_dict(torch.load(folder / "dense.pth", weights_only=True)["model"])
    return amct.create_prune_retrain_model(model, example, config, record)


def save(checkpoint: Path, **state: object) -> None:
    """All that decides how training goes on, replaced at once: an interruption leaves the old file or the new one."""
    torch.save({**state, "rng": torch.get_rng_state()}, f"{checkpoint}.new")
    os.replace(f"{checkpoint}.new", checkpoint)


def train(config: Path | None, folder: Path, epochs: int, rate: float, stop_after: int | None) -> None:
    name = config.stem if config else "dense"
    checkpoint = folder / f"{name}.pth"
    torch.manual_seed(0)
    (images, digits), _ = load()
    model = build(config, folder, checkpoint).train()
    per_epoch = len(digits) // BATCH
    total = epochs * per_epoch
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)
    start = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        optimizer.load_state_dict(state["optimizer"])
        scheduler.load_state_dict(state["scheduler"])
        torch.set_rng_state(state["rng"])  # dropout
        start = state["step"]
    for step in (bar := tqdm(range(start, total), f"{name:10}", initial=start, total=total)):
        epoch, batch = divmod(step, per_epoch)
        order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(epoch))  # the same after a restart
        chosen = order[batch * BATCH : (batch + 1) * BATCH]
        loss = F.cross_entropy(model(images[chosen]), digits[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
        done = step + 1
        if done % SAVE_EVERY == 0 or done == total:
            states = {"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}
            save(checkpoint, model=model.state_dict(), step=done, **states)
        if done == stop_after:
            os._exit(STOPPED)  # as if the machine had gone: nothing is saved, nothing cleaned up


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--config", type=Path, help="what kind of sparsity; dense without")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--stop-after", type=int, help="end the process after so many batches")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options.folder.mkdir(parents=True, exist_ok=True)
    train(options.config, options.folder, options.epochs, options.rate, options.stop_after)


if __name__ == "__main__":
    main()
