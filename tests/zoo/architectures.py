"""The list: one small member of every family that people use."""

from __future__ import annotations

from tests.zoo.architecture import Architecture
from tests.zoo.arranged import ARRANGED
from tests.zoo.convnets import CONVNETS
from tests.zoo.families import FAMILIES
from tests.zoo.language import LANGUAGE
from tests.zoo.multimodal import MULTIMODAL
from tests.zoo.pretrained import PRETRAINED
from tests.zoo.tasks import TASKS
from tests.zoo.transformers_of_images import VISION
from tests.zoo.yolo import YOLO

ARCHITECTURES: tuple[Architecture, ...] = (
    *CONVNETS,
    *FAMILIES,
    *VISION,
    *ARRANGED,
    *TASKS,
    *YOLO,
    *LANGUAGE,
    *MULTIMODAL,
    *PRETRAINED,
)
