"""Whether the pruned member of a family is right, by an oracle that knows neither the plan nor the analysis."""

from __future__ import annotations

import copy
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map_only

import amct_pytorch as amct
from amct_pytorch.apply.shrink import carried_plan
from amct_pytorch.config import ChannelSparsity
from amct_pytorch.report import Left, Summary
from tests.oracle import Double, distinct, fits, kept_twin, randomize
from tests.zoo.architecture import LIMITS, Architecture

CONFIG = amct.SparsityConfig(sparsity=ChannelSparsity(0.5, ascend_optimized=False))
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}
# How far elements of a parameter are moved to tell them apart: less than float32, which weights are stored in, shows.
APART = 1e-10


@dataclass(frozen=True)
class Verdict:
    """What came out for one architecture.

    `verdict`: "right", "in part" (nothing wrong, but more stays than the family's limit), "wrong" or "raises"; `why`
    says what. `reached`: the share of parameters in tensors that lose something; `parameters`, `macs`: the share that
    is left; `create`, `forward`: seconds, with one thread; `compared`: in which cases outputs were compared in numbers;
    `double`: in float64.
    """

    name: str
    kind: str
    source: str
    verdict: str
    why: tuple[str, ...] = ()
    groups: int = 0
    reached: float = 0.0
    parameters: float = 1.0
    macs: float | None = None
    create: float = 0.0
    forward: float = 0.0
    compared: tuple[str, ...] = ()
    double: bool = True
    left: tuple[Left, ...] = ()
    notes: tuple[str, ...] = ()


def judge(architecture: Architecture) -> Verdict:
    """Build, prune at ratio 0.5 without alignment, and compare. A failure of any kind is a verdict, never an error."""
    head = (architecture.name, architecture.kind, architecture.source)
    with _reproducible(), tempfile.TemporaryDirectory() as folder:
        try:
            return _judge(head, *_ready(architecture), Path(folder))
        except Exception as e:  # noqa: BLE001 - a report over all members: one that raises is a row of it
            line = next(iter(str(e).splitlines()), "")
            return Verdict(*head, "raises", (f"{type(e).__name__}: {line} ({_place(e)})",))


def _ready(architecture: Architecture) -> tuple[nn.Module, Any, torch.dtype]:
    """Model and inputs in float64, or in float32 where an operation has no float64."""
    for dtype in (torch.float64, torch.float32):
        torch.manual_seed(0)
        model, inputs = architecture.build()
        model = model.to(dtype).eval()
        if not architecture.pretrained:
            model = randomize(model)
        by = APART if architecture.pretrained else 1e-4
        model = distinct(model, by=by) if dtype == torch.float64 else _distinct_float32(model)
        inputs = _nested(inputs, lambda t: t.to(dtype) if t.is_floating_point() else t)  # noqa: B023
        try:
            _outputs(model, inputs)
        except RuntimeError:
            if dtype == torch.float32:
                raise
            continue  # what the original does not take, the pruned one need not
        return model, inputs, dtype
    raise AssertionError("not reached")


def _distinct_float32(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        for p in model.parameters():
            while len(p.unique()) < p.numel():
                _, inverse, counts = p.flatten().unique(return_inverse=True, return_counts=True)
                p.add_((counts > 1)[inverse].view_as(p) * torch.randn_like(p), alpha=1e-3)
    return model


def _judge(head: tuple[str, str, str], model: nn.Module, inputs: Any, dtype: torch.dtype, folder: Path) -> Verdict:
    forward = _seconds(lambda: _outputs(model, inputs))
    before = _state(model)
    record = folder / "record.txt"
    start = time.perf_counter()
    small = amct.create_prune_retrain_model(model, inputs, CONFIG, record)
    create = time.perf_counter() - start
    wrong = []
    if _state(model) != before:
        wrong.append("the model was changed")
    wrong += _structure(model, small)
    differences, compared = _values(head[1], model, small, inputs, TOLERANCE[dtype])
    wrong += differences
    wrong += _gradients(model, small, inputs)
    wrong += _restored(model, small, inputs, record, folder)
    wrong += _built_again(model, small, inputs, dtype)
    total = sum(p.numel() for p in model.parameters())
    kept = dict(small.named_parameters())
    reached = sum(p.numel() for n, p in model.named_parameters() if kept[n].shape != p.shape) / total
    share = sum(p.numel() for p in kept.values()) / total
    plan = carried_plan(small)
    summary = plan.summary if plan else Summary()
    macs = summary.macs[1] / summary.macs[0] if summary.macs and summary.macs[0] else None
    why = tuple(wrong)
    if not why and share > LIMITS[head[1]]:
        why = (f"{100 * share:.0f} % of the parameters are left, not {100 * LIMITS[head[1]]:.0f} %",)
    verdict = "wrong" if wrong else "in part" if why else "right"
    groups = len(summary.groups)
    double = dtype == torch.float64
    numbers = (groups, reached, share, macs, create, forward)
    return Verdict(*head, verdict, why, *numbers, tuple(compared), double, summary.left, summary.notes)


def _structure(model: nn.Module, small: nn.Module) -> list[str]:
    wrong = []
    if list(small.state_dict()) != list(model.state_dict()):
        wrong.append("the keys of the state dict differ")
    if [n for n, _ in small.named_parameters()] != [n for n, _ in model.named_parameters()]:
        wrong.append("names or ties of the parameters differ")
    was = dict(model.named_modules())
    if stale := [n for n, m in small.named_modules() if fits(was[n]) and not fits(m)]:
        wrong.append(f"attributes do not follow the weight: {', '.join(stale[:5])}")
    mine = {t.data_ptr() for t in model.state_dict().values() if t.numel()}
    if mine & {t.data_ptr() for t in small.state_dict().values() if t.numel()}:
        wrong.append("shares a tensor with the model")
    return wrong


def _values(
    kind: str, model: nn.Module, small: nn.Module, inputs: Any, tolerance: float
) -> tuple[list[str], list[str]]:
    """What differs, and what was compared: eval and train mode, another batch size and, for convolutions, another image
    size."""
    twin = kept_twin(model, small)
    wrong: list[str] = []
    compared: list[str] = []
    cases = [("eval", inputs, False), ("another batch size", _more(inputs), False)]
    if kind == "convnet":
        cases.append(("another image size", _larger(inputs), False))
    cases.append(("train", inputs, True))  # the last: the twin's statistics move
    for label, x, training in cases:
        try:
            want = _outputs(model, x, training)
        except Exception:
            if label in ("eval", "train"):
                raise
            continue  # what the original does not take, the pruned one need not
        try:
            got = _outputs(small, x, training)
        except Exception as e:  # noqa: BLE001 - the verdict says so
            wrong.append(f"{label}: {type(e).__name__}: {next(iter(str(e).splitlines()), '')} ({_place(e)})")
            continue
        if [t.shape for t in got] != [t.shape for t in want]:
            wrong.append(f"{label}: other output shapes")
            continue
        if training and not _same(want, _outputs(model, x, training, seed=1)):
            continue  # dropout: nothing to compare
        compared.append(label)
        worst = _distance(got, _pass(twin, x, training))  # no copy: its forward is bound to it
        if not worst <= tolerance:  # NaN falls short too
            wrong.append(f"{label}: differs from the original over the kept channels by {worst:.1e}")
    return wrong, compared


def _gradients(model: nn.Module, small: nn.Module, inputs: Any) -> list[str]:
    """Every parameter that had a gradient in the original has one."""
    had, has = _with_gradient(model, inputs), _with_gradient(small, inputs)
    lost = [n for n in had if n not in has]
    return [f"no gradient reaches {', '.join(lost[:5])}"] if lost else []


def _with_gradient(model: nn.Module, inputs: Any) -> set[str]:
    model = copy.deepcopy(model).train()
    torch.manual_seed(0)
    outputs = _tensors(_call(model, _nested(inputs, torch.clone)))  # casts as they are: autograd has to follow them
    loss = sum((t * torch.randn_like(t)).sum() for t in outputs if t.is_floating_point() and t.requires_grad)
    loss.backward()
    grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return {n for n, g in grads.items() if bool(g.isfinite().all())}


def _restored(model: nn.Module, small: nn.Module, inputs: Any, record: Path, folder: Path) -> list[str]:
    torch.save(small.state_dict(), folder / "small.pth")
    again = amct.restore_prune_retrain_model(model, inputs, record, CONFIG, folder / "small.pth")
    if list(again.state_dict()) != list(small.state_dict()):
        return ["restore: other keys"]
    if not _same(_outputs(again, inputs), _outputs(small, inputs)):
        return ["restore: other outputs"]
    return []


def _built_again(model: nn.Module, small: nn.Module, inputs: Any, dtype: torch.dtype) -> list[str]:
    """What the class makes of the configuration is the pruned model, as it was the original, or the report says no."""
    if not _is_its_configuration(model, inputs, dtype):
        return []
    plan = carried_plan(small)
    said = plan is not None and any(note.startswith("config") for note in plan.summary.notes)
    right = _is_its_configuration(small, inputs, dtype)
    if said and right:
        return ["its configuration describes it, and the report says that it cannot"]
    return [] if said or right else ["its configuration describes another model, and the report does not say so"]


def _is_its_configuration(model: nn.Module, inputs: Any, dtype: torch.dtype) -> bool:
    if "config" not in vars(model):
        return False
    again = type(model)(copy.deepcopy(model.config)).to(dtype)
    try:
        again.load_state_dict(model.state_dict())
    except RuntimeError:  # other shapes
        return False
    return _same(_outputs(again, inputs), _outputs(model, inputs))


# Running models


def _call(model: nn.Module, inputs: Any) -> Any:
    if isinstance(inputs, dict):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple) else model(inputs)


def _outputs(model: nn.Module, inputs: Any, training: bool = False, seed: int = 0) -> list[torch.Tensor]:
    """The output tensors of one pass; in train mode over a copy, so that running statistics stay."""
    return _pass(copy.deepcopy(model) if training else model, inputs, training, seed)


def _pass(model: nn.Module, inputs: Any, training: bool, seed: int = 0) -> list[torch.Tensor]:
    model.train(training)
    torch.manual_seed(seed)
    with torch.no_grad(), _held(model):
        return _tensors(_call(model, _nested(inputs, torch.clone)))


def _held(model: nn.Module) -> AbstractContextManager[Any]:
    """Casts to float32 in user code stay float64 where the model is float64."""
    return Double() if any(p.dtype == torch.float64 for p in model.parameters()) else nullcontext()


def _tensors(out: Any) -> list[torch.Tensor]:
    if hasattr(out, "__dataclass_fields__") and not isinstance(out, dict):
        out = vars(out)
    return [t for t in tree_leaves(out) if isinstance(t, torch.Tensor)]


def _nested(inputs: Any, function: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    return tree_map_only(torch.Tensor, function, inputs)


def _more(inputs: Any) -> Any:
    return _nested(inputs, lambda t: torch.cat([t, t[:1].flip(-1)]))


def _larger(inputs: Any) -> Any:
    """Images of another size; 32 more, so that every stride still divides it."""
    return _nested(inputs, lambda t: F.pad(t, [0, 32] * (t.ndim - 2), value=0.5))


def _same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def _distance(got: list[torch.Tensor], want: list[torch.Tensor]) -> float:
    """The largest difference relative to the largest value of each output; NaN where there is one."""
    worst = 0.0
    for a, b in zip(got, want, strict=True):
        if a.numel() == 0:
            continue
        if not a.is_floating_point():
            worst = max(worst, 0.0 if torch.equal(a, b) else float("inf"))
            continue
        d = float((a - b).abs().max() / b.abs().max().clamp_min(1e-12))
        if d != d:
            return d
        worst = max(worst, d)
    return worst


def _state(model: nn.Module) -> list[Any]:
    """What the caller may see change: values, where they are, and modes."""
    tensors = [
        (n, t.data_ptr(), tuple(t.shape), hash(t.detach().cpu().numpy().tobytes()))
        for n, t in model.state_dict().items()
    ]
    return [tensors, [(n, m.training, len(vars(m))) for n, m in model.named_modules()]]


def _seconds(function: Callable[[], Any]) -> float:
    times = []
    for _ in range(3):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return sorted(times)[1]


def _place(e: BaseException) -> str:
    """File and line of the deepest frame."""
    trace = e.__traceback__
    place = ""
    while trace is not None:
        place = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place


@contextmanager
def _reproducible() -> Iterator[None]:
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        yield
