import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.running import TINY, refusal, run


def test_it_prints_what_estimate_prints(tiny: str) -> None:
    traced, estimated = (run(tier, "--model", tiny, "--seq-len", "64", "--json") for tier in ("trace", "estimate"))
    assert (traced.code, estimated.code) == (0, 0)
    mine, theirs = json.loads(traced.out), json.loads(estimated.out)
    assert mine["producer"] == "trace"
    assert mine["workload"] == theirs["workload"]
    for figure in ("peak_allocated", "peak_reserved", "at_peak", "phases", "trainable_params", "checkpoint_bytes"):
        assert mine[figure] == theirs[figure]


def test_top_lists_the_largest_blocks_with_their_modules(tiny: str) -> None:
    result = run("trace", "--model", tiny, "--seq-len", "64", "--top", "30")
    assert "Largest blocks" in result.out
    assert "model.embed_tokens: weight" in result.out
    assert result.err == ""  # a pipe sees no progress


def test_any_method_of_pefts_runs_from_its_config(tiny: str, tmp_path: Path) -> None:
    config = tmp_path / "adapter_config.json"
    config.write_text(json.dumps({"peft_type": "IA3", "target_modules": ["k_proj"], "feedforward_modules": []}))
    result = run("trace", "--model", tiny, "--seq-len", "32", "--peft-config", str(tmp_path), "--json")
    assert result.code == 0
    assert json.loads(result.out)["workload"]["method"] == "ia3"


def test_the_picture_and_the_snapshot_are_written(tiny: str, tmp_path: Path) -> None:
    picture, snapshot = tmp_path / "memory.svg", tmp_path / "memory.pickle"
    result = run("trace", "--model", tiny, "--timeline", str(picture), "--snapshot", str(snapshot), "--seq-len", "32")
    assert result.code == 0
    assert b"<svg" in picture.read_bytes()
    assert pickle.loads(snapshot.read_bytes())["device_traces"][0]


@pytest.mark.parametrize("option", ["--timeline", "--snapshot"])
def test_a_file_that_cannot_be_written_is_refused_before_the_work(option: str, tiny: str, tmp_path: Path) -> None:
    result = run("trace", "--model", tiny, option, str(tmp_path / "no" / "such.png"))
    assert result.code == 2
    assert "its folder does not exist" in refusal(result)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--loss", "liger"), "--loss nll"),
        (("--quant", "gptq"), "nf4, fp4 and int8"),
        (("--device", "cpu", "--attention", "sdpa", "--dtype", "fp32"), "--device cpu"),
        (("--device", "cpu", "--dtype", "fp16"), "--device cpu"),
    ],
)
def test_what_trace_cannot_run_ends_in_one_line_with_exit_code_3(
    options: tuple[str, ...], told: str, tiny: str
) -> None:
    result = run("trace", "--model", tiny, *options)
    assert result.code == 3
    assert told in refusal(result)


def test_the_cpu_allocator_rounds_nothing_and_reserves_nothing(tiny: str) -> None:
    result = run("trace", "--model", tiny, "--device", "cpu", "--dtype", "fp32", "--seq-len", "32", "--json")
    footprint = json.loads(result.out)
    assert footprint["peak_reserved"] is None
    assert footprint["at_peak"]["workspace"] < 2**20


def test_remote_code_is_not_run_unless_it_is_trusted(tmp_path: Path) -> None:
    config = {
        **TINY,
        "model_type": "homemade",
        "auto_map": {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "code.py").write_text(
        "from pathlib import Path\n"
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        f"Path({str(tmp_path / 'ran')!r}).touch()\n"
        "class Config(LlamaConfig):\n    model_type = 'homemade'\n"
        "class Model(LlamaForCausalLM):\n    config_class = Config\n"
    )
    result = run("trace", "--model", str(tmp_path), "--seq-len", "32")
    assert result.code == 3
    assert "--trust-remote-code" in refusal(result)
    assert not (tmp_path / "ran").exists()
    result = run(
        "trace", "--model", str(tmp_path), "--seq-len", "32", "--method", "full", "--trust-remote-code", "--json"
    )
    assert result.code == 0, result.err
    assert (tmp_path / "ran").exists()


def test_help_and_refusals_need_no_torch(tiny: str) -> None:
    code = (
        "import sys; from memcalc.cli import main\n"
        f"assert main(['trace', '--model', {tiny!r}, '--batch', '0']) == 2\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
