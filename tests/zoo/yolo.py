"""The YOLO families of the ultralytics package, the smallest of each."""

from __future__ import annotations

import logging
import os
import tempfile
from typing import Any

import torch
from torch import nn

from tests.zoo.architecture import Architecture, Build

# What the package would write in the home directory, look up and install.
QUIET = {"YOLO_CONFIG_DIR": tempfile.gettempdir(), "YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false"}
_DETECTORS = "yolov3-tiny yolov5n yolov6n yolov8n yolov9t yolov10n yolo11n yolo12n yolo26n".split()
_OTHERS = {
    "yolo11n-seg": "SegmentationModel",
    "yolo11n-pose": "PoseModel",
    "yolo11n-obb": "OBBModel",
    "yolo11n-cls": "ClassificationModel",
}


def _build(name: str, kind: str) -> Build:
    def build() -> tuple[nn.Module, Any]:
        for variable, value in QUIET.items():
            os.environ.setdefault(variable, value)
        from ultralytics.nn import tasks  # slow, and it looks at the environment

        logging.getLogger("ultralytics").setLevel(logging.WARNING)  # one kind says what it is, whatever `verbose` is
        model = getattr(tasks, kind)(f"{name}.yaml", verbose=False)
        return model, torch.randn(2, 3, 64, 64)

    return build


YOLO = tuple(
    Architecture(name.replace("-", "_"), "convnet", "ultralytics", _build(name, kind))
    for name, kind in {**dict.fromkeys(_DETECTORS, "DetectionModel"), **_OTHERS}.items()
)
