import subprocess
import sys

import pytest

HEAVY = {"torch", "transformers", "peft", "accelerate", "bitsandbytes", "numpy", "pandas", "matplotlib"}
SLOW = {"importlib.metadata", "importlib.resources", "asyncio", "pydantic", "msgspec", "huggingface_hub", "hypothesis"}


def imported(*arguments: str) -> set[str]:
    """The modules that a command has imported when it ends."""
    script = """
import sys
from memcalc.cli import main
code = main(sys.argv[1:])
print()
print(*sys.modules)
sys.exit(code)
"""
    process = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    return set(process.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("form", [("--json",), ()])
def test_estimate_imports_nothing_heavy(form: tuple[str, ...], tiny: str) -> None:
    assert not imported("estimate", "--model", tiny, "--method", "qlora", *form) & (HEAVY | SLOW)


def test_json_needs_no_rich_and_the_table_does(tiny: str) -> None:
    assert "rich" not in imported("estimate", "--model", tiny, "--json")
    assert "rich.console" in imported("estimate", "--model", tiny)


def test_estimate_loads_the_chosen_method_and_no_other(tiny: str) -> None:
    loaded = {
        name for name in imported("estimate", "--model", tiny, "--method", "full", "--json") if "methods." in name
    }
    assert loaded == {"memcalc.methods.base", "memcalc.methods.full"}


def test_the_help_of_all_commands_needs_no_workload() -> None:
    assert not imported("--help") & (
        HEAVY | SLOW | {"memcalc.workload", "memcalc.catalog.find", "memcalc.tape", "rich"}
    )


def test_the_package_itself_imports_nothing_of_its_own() -> None:
    script = "import sys, memcalc; print([name for name in sys.modules if name.startswith('memcalc.')])"
    assert subprocess.check_output([sys.executable, "-c", script], text=True) == "[]\n"
