"""Configs and records as text protobuf. No other part of this package imports protobuf."""

from amct_pytorch.textio.configs import read_config, write_config
from amct_pytorch.textio.records import format_record, read_record, write_record

__all__ = ["format_record", "read_config", "read_record", "write_config", "write_record"]
