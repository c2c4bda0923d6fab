"""What is missing, too old or out of reach ends in one line and an exit code, without a traceback."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from memcalc.errors import MissingPackage, NotModelled
from memcalc.realize import versions
from tests.cli.running import TINY, Result, refusal, run

_WITHOUT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {package!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name.partition(".")[0])

sys.meta_path.insert(0, Absent())
from memcalc.cli import main
sys.exit(main({arguments!r}))
"""
_MODEL = """
import torch
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM
Path({ran!r}).touch()

@torch.library.custom_op("homemade::{name}", mutates_args=())
def doubled(x: torch.Tensor) -> torch.Tensor:
    return x * 2

class Config(LlamaConfig):
    model_type = 'homemade'

class Model(LlamaForCausalLM):
    config_class = Config
    def forward(self, input_ids, **kwargs):
        x = self.lm_head.weight
        {statement}
        return super().forward(input_ids, **kwargs)
"""


def _without(package: str, *arguments: str) -> Result:
    code = _WITHOUT.format(package=package, arguments=list(arguments))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return Result(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("package", ["torch", "transformers", "peft", "accelerate"])
def test_a_missing_library_is_named_with_the_line_that_installs_it(package: str, tiny: str) -> None:
    result = _without(package, "trace", "--model", tiny, "--seq-len", "8")
    assert result.code == 3, result.err
    assert refusal(result) == f"this needs the package {package}: pip install 'memcalc[trace]'"


def test_bitsandbytes_is_missed_by_quantized_bases_only(tiny: str) -> None:
    result = _without("bitsandbytes", "trace", "--model", tiny, "--seq-len", "8", "--method", "qlora")
    assert result.code == 3, result.err
    assert "memcalc[quant]" in refusal(result)


def test_an_old_transformers_is_refused_by_its_number(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.__version__", "4.30.2")
    versions.transformers_version.cache_clear()
    try:
        result = run("trace", "--model", tiny, "--seq-len", "8")
    finally:
        versions.transformers_version.cache_clear()
    assert result.code == 3
    assert "transformers 4.30.2 is too old" in refusal(result)


def test_libraries_that_do_not_go_together_say_why_themselves() -> None:
    missing = ModuleNotFoundError("No module named 'accelerate'", name="accelerate")
    lazy = ModuleNotFoundError("Could not import module 'Trainer'.")
    lazy.__cause__ = missing
    assert isinstance(versions.not_importable(lazy), MissingPackage)
    renamed = ImportError("cannot import name 'Cache' from 'transformers'", name="transformers")
    refused = versions.not_importable(renamed)
    assert isinstance(refused, NotModelled)
    assert "cannot import name 'Cache'" in str(refused)


@pytest.mark.parametrize(
    ("name", "statement", "told"),
    [
        ("branches", "if (x > 0).any(): pass", "asks for the value of a bool tensor"),
        ("prints", "x.detach().numpy()", "reads the values of a tensor"),
        ("lists", "x.tolist()", "reads the values of a tensor"),
        ("chooses", "x[x > 0]", "shapes depend on values"),
        ("sparse", "x.to_sparse()", "has no meta kernel"),
        ("custom", "doubled(x)", "no meta kernel"),
    ],
)
def test_a_step_that_needs_real_values_names_profile(name: str, statement: str, told: str, tmp_path: Path) -> None:
    code = {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}
    (tmp_path / "config.json").write_text(json.dumps({**TINY, "model_type": "homemade", "auto_map": code}))
    (tmp_path / "code.py").write_text(_MODEL.format(ran=str(tmp_path / "ran"), name=name, statement=statement))
    arguments = ("trace", "--model", str(tmp_path), "--seq-len", "8", "--method", "full")
    assert run(*arguments).code == 3
    assert not (tmp_path / "ran").exists()
    result = run(*arguments, "--trust-remote-code")
    assert result.code == 3, result.err
    assert told in refusal(result)
    assert "profile" in refusal(result)


def test_a_known_model_type_is_built_by_transformers_whatever_code_lies_beside_it(tmp_path: Path) -> None:
    code = {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}
    (tmp_path / "config.json").write_text(json.dumps({**TINY, "auto_map": code}))
    (tmp_path / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    result = run("trace", "--model", str(tmp_path), "--seq-len", "8", "--method", "full")
    assert result.code == 0, result.err
    assert not (tmp_path / "ran").exists()


def test_a_report_without_matplotlib_names_the_extra_and_the_way_around(tmp_path: Path) -> None:
    published = Path(__file__).parents[2] / "profiles" / "published" / "vramcalc.jsonl"
    line = ("report", str(published), "--out", str(tmp_path))
    result = _without("matplotlib", *line)
    assert result.code == 3
    assert "pip install 'memcalc[report]'" in refusal(result)
    assert "--no-pictures" in refusal(result)
    assert not list(tmp_path.iterdir())
    assert _without("matplotlib", *line, "--no-pictures").code == 0
