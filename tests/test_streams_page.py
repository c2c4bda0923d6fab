from memcalc.comparing import first_difference
from memcalc.timeline import Timeline
from tests import cases
from tests.comparison import Result, Run, cause
from tests.covering import Cover
from tests.streams_page import page, summary


def births(*sizes: int) -> Timeline:
    timeline = Timeline()
    for size in sizes:
        timeline.birth(size, "activations", f"model.layers.{size}.mlp", "mul")
    return timeline


def differing(name: str, mine: Timeline, theirs: Timeline) -> Result:
    difference = first_difference(mine, theirs, ("estimate", "trace"))
    assert difference is not None
    return Result(cases.named(name), "differs", difference.summary, "\n".join(difference.context), births=3)


FOUND = [
    differing("llama lora", births(1, 2, 3), births(1, 2, 4)),
    differing("qwen2 full ckpt", births(1, 20, 3), births(1, 40, 3)),
    Result(cases.named("llama full"), "identical", births=7),
    Result(cases.named("bloom full"), "not run", "trace refuses: because"),
]


def run_over(results: list[Result]) -> Run:
    return Run(5, covered=results, cover=Cover((("llama",), ("full",)), lambda case: True))


def test_differences_that_only_numbers_tell_apart_have_one_cause() -> None:
    assert cause(FOUND[0]) == cause(FOUND[1])
    assert "model.layers" not in cause(FOUND[0])


def test_what_was_not_run_counts_neither_way() -> None:
    assert "1 of 3 streams identical, block by block (13 births)" in summary(run_over(FOUND))
    assert "Not run: 1 cases" in summary(run_over(FOUND))


def test_an_exception_stands_with_its_block_and_all_cases_of_its_cause() -> None:
    text = page(run_over(FOUND))
    exceptions = text[text.index("## Exceptions") : text.index("## Equal streams")]
    assert "### 2 × birth 2: estimate 3 B (0.0 KiB) model.layers.3.mlp: mul, trace 4 B" in exceptions
    assert "`qwen2 full ckpt`" in exceptions
    assert "→      2  estimate" in exceptions


def test_every_case_that_ran_is_listed() -> None:
    table = page(run_over(FOUND)).partition("## Every case")[2]
    assert "| llama full | yes | 7 |" in table
    assert "| llama lora | no: birth 2" in table
    assert "bloom" not in table
