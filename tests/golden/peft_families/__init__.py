"""The PEFT families, a function each."""

from . import lora, scales, products, rotations, projections, sparse, prompts, options, mixed, combined, bases, relative, refused  # noqa: F401
from .registry import FAMILIES  # noqa: F401
