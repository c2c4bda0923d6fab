"""A micro-batch as a collator hands it over, moved to the device."""

import torch

Batch = dict[str, torch.Tensor]


def make_batch(
    batch: int, seq_len: int, vocab_size: int, *, padded: bool, labels: bool, device: str, tasks: bool = False
) -> Batch:
    """input_ids and, in training, labels, int64 (b, s); with `padded` a mask whose one zero is the last token
    of the last row, where the label is ignored; with `tasks` the number of each row's task (b).

    Order of the keys: transformers 5.24, data/data_collator.py, DataCollatorForLanguageModeling.
    """
    ids = torch.arange(batch * seq_len, dtype=torch.int64).remainder(vocab_size).view(batch, seq_len)
    host = {"input_ids": ids}
    if padded:
        host["attention_mask"] = torch.ones_like(ids)
        host["attention_mask"][-1, -1] = 0
    if labels:
        host["labels"] = ids.clone()
        if padded:
            host["labels"][-1, -1] = -100
    if tasks:
        host["task_ids"] = torch.zeros(batch, dtype=torch.int64)
    return {name: torch.empty_like(tensor, device=device).copy_(tensor) for name, tensor in host.items()}
