"""Configs as text: `AMCTRetrainConfig`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Any

from google.protobuf import text_format

from amct_pytorch.config import ChannelSparsity, NmSparsity, Sparsity, SparsityConfig
from amct_pytorch.errors import ConfigError, warn
from amct_pytorch.files import Path, atomic_write, read_text
from amct_pytorch.proto.retrain_config_pytorch_pb2 import M4N2, AMCTRetrainConfig, PruneConfig
from amct_pytorch.textio.parsing import check_escapes, line_of, named, parse, plain

_BAD_RATIO = r"prune_ratio\s*:\s*([^\s,;}>]+)"


def read_config(config: Path | SparsityConfig) -> SparsityConfig:
    """A config as a value: a `SparsityConfig` as it is, or the path of a text file of `AMCTRetrainConfig`.

    A `ConfigError` names file, line, field and value. Quantization settings are not used here: one `AmctWarning` names
    them.
    """
    if isinstance(config, SparsityConfig):
        return config
    if not isinstance(config, (str, os.PathLike)):
        raise ConfigError(
            f"config_defination: expected the path of a text file, or a SparsityConfig, got a {type(config).__name__}"
        )
    text = read_text(config, "config_defination", ConfigError)
    source = str(config)
    message = AMCTRetrainConfig()
    check_escapes(text, source, ConfigError)
    parse(text, message, source, ConfigError)
    found = _config(message, source, text)
    unused = _quantization_fields(message)
    if unused:
        warn(f"{source}: quantization is not done here; not used: {', '.join(unused)}")
    return found


def write_config(config: SparsityConfig, path: Path) -> None:
    """Write a config as text that `read_config` turns into an equal one. Equal configs give equal bytes."""
    try:
        message = _config_message(config)
    except ValueError as cause:  # protobuf refuses text that is no UTF-8
        raise ConfigError(f"{path}: a name in the config cannot be written as UTF-8: {cause}") from cause
    atomic_write(path, text_format.MessageToString(message, as_utf8=True).encode())


def _config_message(config: SparsityConfig) -> AMCTRetrainConfig:
    gradients = None if config.gradients == "kept" else config.gradients.upper()
    message = AMCTRetrainConfig(
        skip_layers=config.skip_layers, skip_layer_types=config.skip_types, sparse_gradients=gradients
    )
    if not config.residual_width:
        message.residual_width = False
    if config.sparsity is not None:
        _fill(message.prune_config, config.sparsity)
    for name, sparsity in config.override_layers.items():
        _fill(message.override_layer_configs.add(layer_name=name).prune_config, sparsity)
    for name, sparsity in config.override_types.items():
        _fill(message.override_layer_types.add(layer_type=name).prune_config, sparsity)
    return message


def _fill(message: PruneConfig, sparsity: Sparsity) -> None:
    if isinstance(sparsity, ChannelSparsity):
        channels = message.filter_pruner.balanced_l2_norm_filter_prune
        channels.prune_ratio, channels.ascend_optimized = sparsity.prune_ratio, sparsity.ascend_optimized
    else:
        nm = message.n_out_of_m_pruner.l1_selective_prune
        nm.n_out_of_m_type, nm.update_freq = M4N2, sparsity.update_freq


def _config(message: AMCTRetrainConfig, source: str, text: str) -> SparsityConfig:
    layers = ((entry.layer_name, entry) for entry in message.override_layer_configs)
    types = ((entry.layer_type, entry) for entry in message.override_layer_types)
    override_layers = _overrides("override_layer_configs", "layer_name", layers, source, text)
    override_types = _overrides("override_layer_types", "layer_type", types, source, text)
    everywhere = (
        _sparsity(message.prune_config, "prune_config", source, text) if message.HasField("prune_config") else None
    )
    with named(source, ConfigError):
        return SparsityConfig(
            everywhere,
            (*message.skip_layers, *message.regular_prune_skip_layers),
            (*message.skip_layer_types, *message.regular_prune_skip_types),
            override_layers,
            override_types,
            AMCTRetrainConfig.SparseGradients.Name(message.sparse_gradients).lower(),
            message.residual_width,
            source,
            _places(message, source, text),
        )


def _places(message: AMCTRetrainConfig, source: str, text: str) -> dict[str, str]:
    """File, line and field of each layer that a config names."""
    named = [
        *((entry.layer_name, "override_layer_configs") for entry in message.override_layer_configs),
        *((name, "skip_layers") for name in message.skip_layers),
        *((name, "regular_prune_skip_layers") for name in message.regular_prune_skip_layers),
    ]
    lines: dict[str, int] = {}
    for number, line in enumerate(plain(text).split("\n"), 1):
        for quoted in re.finditer("\"([^\"]*)\"|'([^']*)'", line):
            lines.setdefault(quoted[1] or quoted[2] or "", number)
    return {name: f"{source}{f':{lines[name]}' if name in lines else ''}: {field}" for name, field in named}


def _overrides(field: str, key: str, entries: Iterable[tuple[str, Any]], source: str, text: str) -> dict[str, Sparsity]:
    found: dict[str, Sparsity | None] = {}
    for name, entry in entries:
        where = f"{field} ({key}: {name!r})"
        if name in found:
            line = line_of(text, rf"{key}\s*:\s*[\"']{re.escape(name)}[\"']", which=1)
            raise ConfigError(f"{source}{line}: {where} is given twice; give it once")
        has_sparsity = entry.HasField("prune_config")  # else it is about quantization alone
        found[name] = _sparsity(entry.prune_config, where, source, text) if has_sparsity else None
    return {name: sparsity for name, sparsity in found.items() if sparsity is not None}


def _sparsity(message: PruneConfig, where: str, source: str, text: str) -> Sparsity:
    if message.HasField("filter_pruner") and message.filter_pruner.HasField("balanced_l2_norm_filter_prune"):
        channels = message.filter_pruner.balanced_l2_norm_filter_prune
        with named(f"{source}{line_of(text, _BAD_RATIO, bad=_is_bad_ratio)}: {where}", ConfigError):
            return ChannelSparsity(channels.prune_ratio, channels.ascend_optimized)
    if message.HasField("n_out_of_m_pruner") and message.n_out_of_m_pruner.HasField("l1_selective_prune"):
        return NmSparsity(message.n_out_of_m_pruner.l1_selective_prune.update_freq)
    raise ConfigError(
        f"{source}: {where} names no way to prune; expected "
        "filter_pruner { balanced_l2_norm_filter_prune { prune_ratio: 0.5 } } for channels, or "
        "n_out_of_m_pruner { l1_selective_prune { n_out_of_m_type: M4N2 } } for 2:4"
    )


def _quantization_fields(message: AMCTRetrainConfig) -> list[str]:
    ours = {"override_layer_configs", "override_layer_types", "prune_config", "sparse_gradients", "residual_width"}
    named = {
        field.name
        for field, _ in message.ListFields()
        if field.name not in ours and not re.match("(regular_prune_)?skip_", field.name)
    }
    for where in ("override_layer_configs", "override_layer_types"):
        for entry in getattr(message, where):
            named |= {f"{where}.{field.name}" for field, _ in entry.ListFields() if field.name.startswith("retrain_")}
    return sorted(named)


def _is_bad_ratio(text: str) -> bool:
    try:
        ChannelSparsity(float(text.rstrip("fF")))
    except ValueError:  # a ConfigError too
        return True
    return False
