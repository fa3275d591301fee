"""Operations that compute each element from the elements at the same place."""

from __future__ import annotations

import torch

from amct_pytorch.analyse import labels as lb
from amct_pytorch.analyse.capture import Capture, Rule
from amct_pytorch.analyse.known import Call
from amct_pytorch.analyse.labels import index
from amct_pytorch.analyse.values import flatten


def unary(capture: Capture, call: Call) -> None:
    """The result holds what the first argument holds."""
    factors = capture.factors(call.args[0])
    for out in call.out if isinstance(call.out, (tuple, list)) else (call.out,):
        if isinstance(out, torch.Tensor) and out.shape == call.args[0].shape:
            capture.put(out, factors)


def pointwise(capture: Capture, call: Call) -> None:
    """All tensor arguments meet, broadcast."""
    tensors = [t for t in flatten((call.args, call.kwargs)) if isinstance(t, torch.Tensor)]
    if len(tensors) == 2 and tensors[0].shape == tensors[1].shape:
        one, two = capture.factors(tensors[0]), capture.factors(tensors[1])
        if len(one) == len(two) == 1 and one[0].shape == two[0].shape:
            capture.labels.tie(one[0], two[0])
            capture.put(call.out, two if capture.labels.yields(one[0], two[0]) else one)
            return
    capture.put(call.out, capture.merge([(t, capture.factors(t)) for t in tensors], call.out.ndim))


def in_place(rule: Rule) -> Rule:
    """What is written into a part of another tensor has to hold the channels that are there."""

    def checked(capture: Capture, call: Call) -> None:
        target = call.args[0]
        before = list(capture.factors(target))
        rule(capture, call)
        if target._is_view():
            covered = {d for f in before for d in lb.dims(f)}
            written = [d for d in range(target.ndim) if target.shape[d] > 1 and d not in covered]
            after = capture.fixed(capture.factors(target), written, "it is written into a part of a tensor")
            capture.put(target, after)

    return checked


def copy(capture: Capture, call: Call) -> None:
    """What is written has to hold the channels that are there: other views of the target speak of those."""
    target, source = call.args[:2]
    if capture.factors(target) or target._is_view() or id(target) in capture.parameters:
        operands = [(t, capture.factors(t)) for t in (target, source)]
    else:
        operands = [(source, capture.factors(source))]  # nothing of the old content stays
    capture.put(call.out, capture.merge(operands, target.ndim))


def clamp(capture: Capture, call: Call) -> None:
    """Bounds are numbers, or tensors that meet what they bound."""
    bounded = any(isinstance(t, torch.Tensor) for t in flatten((call.args[1:], call.kwargs)))
    (pointwise if bounded else unary)(capture, call)


def prelu(capture: Capture, call: Call) -> None:
    """The slope has one element per channel, dim 1."""
    x, slope = call.args[:2]
    dim = min(1, x.ndim - 1)
    if slope.ndim == 1 and slope.numel() > 1:
        along = [(slope.view([-1 if d == dim else 1 for d in range(x.ndim)]), _moved(capture, slope, dim, x.ndim))]
    else:
        along = [(slope, capture.factors(slope))]
    capture.put(call.out, capture.merge([(x, capture.factors(x)), *along], x.ndim))


def gradient(capture: Capture, call: Call) -> None:
    """(gradient of the result, elements, ...), and what goes with them: the gradient of each element, by its place."""
    tensors = [t for t in flatten(call.args) if isinstance(t, torch.Tensor) and t.shape == call.args[0].shape]
    factors = capture.merge([(t, capture.factors(t)) for t in tensors], call.args[0].ndim)
    for out in call.out if isinstance(call.out, (tuple, list)) else (call.out,):
        capture.put(out, factors)


def _moved(capture: Capture, vector: torch.Tensor, dim: int, ndim: int) -> list[lb.Factor]:
    return [lb.place(f.ravel(), dim, ndim) for f in capture.factors(vector)]


def glu(capture: Capture, call: Call) -> None:
    """The halves of a dim meet: channel i of one goes with channel i of the other."""
    x = call.args[0]
    dim = call.arg(1, "dim", -1) % x.ndim
    out = []
    for f in capture.factors(x):
        if f.shape[dim] > 1:
            half = f.shape[dim] // 2
            first, second = index(f, dim, 0, half), index(f, dim, half, 2 * half)
            capture.labels.tie(first, second)
            out.append(first)
        else:
            out.append(f)
    capture.put(call.out, out)


def constant(capture: Capture, call: Call) -> None:
    """A new tensor that depends on nothing; what its sizes count is seen where user code asks for it."""


def like(capture: Capture, call: Call) -> None:
    """ones_like, zero_ and others: the shape of a tensor, of its values nothing."""
    capture.put(call.out, [capture.labels.constant_like(f) for f in capture.factors(call.args[0])])


def triangle(capture: Capture, call: Call) -> None:
    """tril, triu: what stays depends on both indices."""
    x = call.args[0]
    kept = capture.fixed(capture.factors(x), [x.ndim - 2, x.ndim - 1], "a triangle is cut out of it")
    capture.put(call.out, kept)


UNARY = (
    "relu relu6 gelu silu sigmoid hardswish hardsigmoid hardtanh tanh elu leaky_relu neg exp exp2 expm1 log "
    "log2 log10 log1p sqrt rsqrt abs native_dropout dropout alpha_dropout mish softplus softshrink hardshrink "
    "threshold reciprocal erf erfc erfinv round floor ceil trunc frac square sin cos "
    "tan asin acos atan sinh cosh sign sgn selu celu log_sigmoid_forward logical_not bitwise_not isnan isinf "
    "isfinite nan_to_num logit clone _to_copy detach alias lift_fresh lift_fresh_copy positive "
    "bernoulli bernoulli_ conj conj_physical _conj real angle _neg_view rrelu_with_noise rrelu "
    "_fake_quantize_learnable_per_tensor_affine fake_quantize_per_tensor_affine "
    "fake_quantize_per_tensor_affine_cachemask"
).split()
LIKE = (
    "zeros_like zero zero_ ones_like full_like empty_like rand_like randn_like randint_like fill fill_ uniform_ "
    "normal_ exponential_"
).split()
POINTWISE = (
    "add sub mul div maximum minimum fmax fmin where pow addcmul addcdiv lerp masked_fill eq ne lt gt le ge "
    "rsub atan2 remainder fmod floor_divide true_divide logical_and logical_or logical_xor bitwise_and "
    "bitwise_or bitwise_xor hypot xlogy logaddexp logaddexp2 copysign heaviside polar complex"
).split()
# The others are tagged as pointwise.
GRADIENTS = (
    "softplus elu leaky_relu hardtanh hardswish hardsigmoid log_sigmoid softshrink hardshrink mish rrelu_with_noise "
    "_prelu_kernel"
).split()
RULES: dict[str, Rule] = {
    **dict.fromkeys(UNARY, unary),
    **{name + "_": in_place(unary) for name in UNARY if name + "_" not in UNARY and not name.endswith("_")},
    **dict.fromkeys(POINTWISE, pointwise),
    **{name + "_": in_place(pointwise) for name in POINTWISE},
    **{name + "_backward": gradient for name in GRADIENTS},
    **dict.fromkeys(("clamp", "clamp_min", "clamp_max", "clip"), clamp),
    **dict.fromkeys(("clamp_", "clamp_min_", "clamp_max_", "clip_"), in_place(clamp)),
    **dict.fromkeys(LIKE, like),
    "copy_": in_place(copy),
    "copy": copy,
    **dict.fromkeys(("tril", "triu", "tril_", "triu_"), triangle),
    "_prelu_kernel": prelu,
    "prelu": prelu,
    **dict.fromkeys(
        ("new_zeros", "new_ones", "new_full", "new_empty", "new_empty_strided", "empty_strided", "sym_size"), constant
    ),
    "glu": glu,
}
