"""NEFTune (arXiv:2310.05914): uniform noise added to the token embeddings while a model trains."""

from typing import Any

from torch import nn

from memcalc.errors import InvalidWorkload
from memcalc.realize.adapters import uses_peft
from memcalc.workload import Workload


def add_noise(model: nn.Module, workload: Workload) -> None:
    """Hook transformers' own noise behind the embedding that its Trainer finds; a hand-written loop asks the model.

    Source: transformers 5.24, integrations/neftune.py, activate_neftune (4.45: trainer.py, _activate_neftune).
    Raises InvalidWorkload where Trainer finds none: it looks two modules deep into whatever peft made.
    """
    embedding = _found_by_trainer(model) if workload.loop == "trainer" else _embedding(model)
    embedding.neftune_noise_alpha = workload.neftune_alpha
    embedding.register_forward_hook(_hook())


def _found_by_trainer(model: Any) -> Any:
    if not uses_peft(model):
        return _embedding(model)
    try:
        return model.base_model.model.get_input_embeddings()
    except AttributeError as error:
        raise InvalidWorkload(
            f"--neftune-alpha: Trainer does not find the embedding of this model under its prompts ({error})"
        ) from error


def _embedding(model: Any) -> Any:
    return model.get_input_embeddings()


def _hook() -> Any:
    try:
        from transformers.integrations.neftune import neftune_post_forward_hook
    except ImportError:  # 4.x
        from transformers.trainer_utils import neftune_post_forward_hook
    return neftune_post_forward_hook
