"""All tasks."""

from __future__ import annotations

from tests.pretrained import images, language, sound
from tests.pretrained.task import Task

TASKS: tuple[Task, ...] = (*images.TASKS, *sound.TASKS, *language.TASKS)
