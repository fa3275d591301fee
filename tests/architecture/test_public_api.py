"""The public names and their parameters: what others build on changes only on purpose."""

import inspect

import pytest

import amct_pytorch

# Positional parameters, AMCT's own where the call is AMCT's, and ours, keyword-only, after the *.
CALLS = {
    "create_prune_retrain_model": "model, input_data, config_defination, record_file, *, rules=None, opaque=()",
    "restore_prune_retrain_model": "model, input_data, record_file, config_defination, pth_file, state_dict_name=None",
    "save_prune_retrain_model": (
        "model, save_path, input_data, input_names=None, output_names=None, dynamic_axes=None, *, opset=17"
    ),
    "plan": "model, input_data, config, *, rules=None, opaque=()",
    "apply": "model, plan",
    "mask_2to4": "weight, dim=1",
    "to_dense": "model",
    "check_2to4": "model",
    "update_record": "model, record_file",
}
VALUES = {"ChannelSparsity", "NmSparsity", "SparsityConfig", "Plan", "ChannelPlan", "NmPlan"}
ERRORS = {
    "AmctError",
    "AmctWarning",
    "CheckpointError",
    "CheckpointKeyError",
    "ConfigError",
    "ModelError",
    "RecordError",
    "WriteError",
}


def shown(function: object) -> str:
    parts = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in parts:
            parts.append("*")
        default = "" if parameter.default is parameter.empty else f"={parameter.default!r}"
        parts.append(parameter.name + default)
    return ", ".join(parts)


def test_names() -> None:
    expected = {*CALLS, *VALUES, *ERRORS}
    assert set(amct_pytorch.__all__) == expected, (
        "the public names changed: "
        f"new {sorted(set(amct_pytorch.__all__) - expected)}, gone {sorted(expected - set(amct_pytorch.__all__))}. "
        "If that is meant, say so in this test and in README.md; a name that goes needs a deprecation first"
    )


@pytest.mark.parametrize("name", CALLS)
def test_calls(name: str) -> None:
    assert shown(getattr(amct_pytorch, name)) == CALLS[name], (
        f"{name} takes other parameters than before. AMCT's calls keep its parameters, by position and name; ours come "
        "after them, keyword-only. If the change is right, write it here and in the docs"
    )


@pytest.mark.parametrize("name", sorted(ERRORS - {"AmctError", "AmctWarning"}))
def test_one_base_for_all_errors(name: str) -> None:
    assert issubclass(getattr(amct_pytorch, name), amct_pytorch.AmctError)
