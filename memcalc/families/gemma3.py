"""Gemma 3 with its vision tower: not written. Its language model alone is gemma3_text."""

from typing import NoReturn

from memcalc.catalog.find import Model
from memcalc.errors import NotModelled
from memcalc.families import gemma3_text

MODULES, LAYER_MODULES, LAYERS = gemma3_text.MODULES, gemma3_text.LAYER_MODULES, gemma3_text.LAYERS
HEAD, ATTENTIONS, LEARNED_POSITIONS = gemma3_text.HEAD, gemma3_text.ATTENTIONS, gemma3_text.LEARNED_POSITIONS
forward = gemma3_text.forward


def read(model: Model) -> NoReturn:
    """Raises NotModelled, with the way to the language model."""
    raise NotModelled(
        f"{model.name}: estimate does not write Gemma 3's vision tower: use memcalc trace, or save what stands in "
        "text_config as a config.json of its own for the language model alone"
    )
