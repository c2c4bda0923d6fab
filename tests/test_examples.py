"""The notebooks run from top to bottom, and print what stands in them.

After a change, made anew by a real kernel: pip install nbconvert ipykernel, then
jupyter nbconvert --to notebook --execute --inplace examples/*.ipynb
"""

import ast
import contextlib
import io
import json
import warnings
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
import pytest

NOTEBOOKS = sorted((Path(__file__).parent.parent / "examples").glob("*.ipynb"))


def run_cell(source: str, names: dict[str, Any]) -> str:
    """What a cell prints, and then its last expression, as a notebook shows it without pictures."""
    tree = ast.parse(source)
    last = tree.body[-1] if tree.body else None
    if isinstance(last, ast.Expr):
        tree.body.pop()
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(tree, "cell", "exec"), names)
        value = eval(compile(ast.Expression(last.value), "cell", "eval"), names) if isinstance(last, ast.Expr) else None
    return out.getvalue() + ("" if value is None else repr(value))


def stands_there(cell: dict[str, Any]) -> str:
    """What the committed cell prints and shows, pictures left out."""
    assert all(output["output_type"] != "error" for output in cell["outputs"])
    texts = []
    for output in cell["outputs"]:
        if "image/png" not in output.get("data", ()):
            texts += output.get("text", []) or output["data"]["text/plain"]
    return "".join(texts)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_prints_what_stands_in_it(path: Path) -> None:
    from matplotlib import pyplot as plt

    mpl.use("Agg")
    names: dict[str, Any] = {"__name__": "__main__"}
    as_in_a_notebook = pd.option_context("display.max_columns", 20, "display.width", 80)
    with warnings.catch_warnings(), as_in_a_notebook:
        warnings.simplefilter("ignore")  # no window is there to show a picture
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "code":
                assert cell["execution_count"], "it was committed without a run"
                assert run_cell("".join(cell["source"]), names) == stands_there(cell)
    plt.close("all")


def test_the_notebooks_that_readme_speaks_of_are_there() -> None:
    assert {path.stem for path in NOTEBOOKS} == {"capacity_planning", "compare_methods", "trace_your_own_step"}
