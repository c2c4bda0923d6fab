"""Runs a command line in this process, as the console script does."""

import contextlib
import io
from dataclasses import dataclass

from memcalc.cli import main

TINY = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 512,
    "max_position_embeddings": 4096,
}


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


def run(*arguments: str) -> Result:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(arguments)
    return Result(code, out.getvalue(), err.getvalue())


def refusal(result: Result) -> str:
    """The one line of a refused command: nothing on stdout, one line on stderr, no traceback."""
    assert result.out == ""
    assert result.err.count("\n") == 1
    assert result.err.startswith("memcalc: error: ")
    assert "Traceback" not in result.err
    return result.err.removeprefix("memcalc: error: ").rstrip("\n")
