from tests.method_streams import FAMILIES, Cell, cell, page


def test_a_cell_has_every_step_identical_refused_or_apart() -> None:
    lora, prefix = cell("lora", "llama"), cell("prefix_tuning", "opt")
    assert (len(lora.births), lora.refused, lora.exceptions) == (6, (), ())
    assert (len(prefix.births), prefix.exceptions) == (2, ())
    assert prefix.refused[0].startswith("--checkpointing cannot go with --method prefix_tuning")


def test_the_page_shows_what_differs_and_why() -> None:
    cells = [Cell("lora", family, (7,) * 5, (), ("reentrant checkpointing: birth 3",)) for family in FAMILIES]
    text = "\n".join(page(cells))
    assert "25 of 30 steps identical (175 births)." in text
    assert "| lora | 5 **differs** |" in text
    assert "- lora, gpt2: reentrant checkpointing: birth 3" in text
