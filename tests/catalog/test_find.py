import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memcalc.catalog import hub
from memcalc.catalog.find import DEFAULT_GPU, Model, find_gpu, find_model, gpus, models, other_names, stand_ins
from memcalc.catalog.names import loose
from memcalc.errors import BadFile, InvalidWorkload, MemcalcError, UnknownName
from memcalc.units import GIB


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("llama-3.1-8b", "llama-3.1-8b"),
        ("Llama_3_1_8B", "llama-3.1-8b"),
        ("meta-llama/Llama-3.1-8B", "llama-3.1-8b"),
        ("META-LLAMA/llama-3.1-8b-instruct", "llama-3.1-8b"),
        ("Meta-Llama-3.1-8B-Instruct", "llama-3.1-8b"),
        ("Qwen2.5 7B", "qwen2.5-7b"),
        ("bloomz-560m", "bloom-560m"),
        ("bigscience/bloom", "bloom-176b"),
        ("zephyr-7b-beta", "mistral-7b-v0.1"),
        ("mistral-7b-v0.1-fms", "mistral-7b-v0.1-fms"),
        ("vicuna-13b-v1.5", "llama-2-13b"),
        ("1.3b", "bloom-1.3b"),
        ("1.3B", "bloom-1.3b"),
        ("7b", "llama-2-7b"),
        ("8b", "llama-3.1-8b"),
        ("13b", "llama-2-13b"),
        ("70B", "llama-3.1-70b"),
        ("0.6b", "qwen3-0.6b"),
        ("gpt2", "gpt2"),
        ("openai-community/gpt2-xl", "gpt2-xl"),
        ("EleutherAI/pythia-1.4b-deduped", "pythia-1.4b"),
        ("gemma-3-4b", "gemma-3-4b-text"),
        ("command-r", "command-r-v01"),
        ("phi 4 mini", "phi-4-mini"),
    ],
)
def test_a_model_is_found_by_the_names_that_people_use(text: str, key: str) -> None:
    assert find_model(text).name == key


def test_every_name_of_the_catalog_finds_its_own_entry() -> None:
    cards = {gpu.key for gpu in gpus()}
    for name, key in other_names().items():
        assert (find_gpu(name).key if key in cards else find_model(name).name) == key


def test_no_two_entries_answer_to_the_same_name() -> None:
    owners: dict[str, str] = {}
    for name, key in [*other_names().items(), *((model.name, model.name) for model in models())]:
        assert owners.setdefault(loose(name), key) == key, name


def test_every_size_says_why_it_means_that_model() -> None:
    for name, (key, why) in stand_ins().items():
        assert len(why) > 12, name
        assert key


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("llama-3.1-9b", "llama-3.1-8b"),
        ("mistal-7b-v0.1", "mistral-7b-v0.1"),
        ("meta-llama/Llama-3.1-8", "meta-llama/llama-3.1-8b"),
    ],
)
def test_an_unknown_model_names_the_nearest_and_the_remedy(text: str, near: str) -> None:
    with pytest.raises(UnknownName) as refusal:
        find_model(text)
    assert near in str(refusal.value)


def test_an_unknown_name_says_where_all_are_listed_and_what_else_there_is() -> None:
    with pytest.raises(UnknownName, match=r"memcalc models lists them, or give a folder with config\.json"):
        find_model("llama-3.1-9b")


def test_a_hub_id_that_is_not_in_the_catalog_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "mine"}')
    monkeypatch.setattr(hub, "config_file", lambda repo_id: str(tmp_path / "config.json"))
    found = find_model("someone/something")
    assert found == Model(
        "someone/something", {"model_type": "mine"}, "config.json of huggingface.co/someone/something"
    )


def test_a_hub_id_of_the_catalog_and_a_folder_beside_us_are_never_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(repo_id: str) -> str:
        raise AssertionError(repo_id)

    (tmp_path / "someone" / "something").mkdir(parents=True)
    (tmp_path / "someone" / "something" / "config.json").write_text('{"model_type": "mine"}')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "config_file", asked)
    assert find_model("Qwen/Qwen3-8B").name == "qwen3-8b"
    assert find_model("someone/something").config == {"model_type": "mine"}


def test_a_hub_id_that_cannot_be_fetched_says_why_and_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match=r"did you mean qwen/qwen3-8b.*the hub is out of reach"):
        find_model("Qwen/Qwen3-8C")


def test_a_slip_of_the_separator_never_finds_a_model_of_another_size() -> None:
    for text in ("qwen2.5-15b", "qwen2.5-05b", "llama-3.2-13b", "13.b.", "smollm2-17b"):
        try:
            found = find_model(text).name
        except UnknownName:
            continue
        assert found == "llama-2-13b"  # "13.b." is still 13b


def test_a_path_is_a_folder_with_config_json_or_a_file_of_any_name(tmp_path: Path) -> None:
    config = {"model_type": "llama", "hidden_size": 64}
    for name in ("config.json", "mine.txt"):
        (tmp_path / name).write_text(json.dumps(config))
    assert find_model(str(tmp_path)) == Model(str(tmp_path), config, str(tmp_path / "config.json"))
    assert find_model(str(tmp_path / "mine.txt")).config == config


def test_a_catalog_name_wins_over_a_folder_of_that_name_until_it_is_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "7b").mkdir()
    (tmp_path / "7b" / "config.json").write_text('{"model_type": "mine"}')
    monkeypatch.chdir(tmp_path)
    assert find_model("7b").name == "llama-2-7b"
    assert find_model("./7b").config == {"model_type": "mine"}


def test_a_folder_beside_us_needs_no_dot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my-model").mkdir()
    (tmp_path / "my-model" / "config.json").write_text('{"model_type": "mine"}')
    monkeypatch.chdir(tmp_path)
    assert find_model("my-model").config == {"model_type": "mine"}


@pytest.mark.parametrize("text", ["/nowhere/at/all", "./nothing", "~/no/such/folder"])
def test_a_path_that_leads_nowhere_is_no_unknown_name(text: str) -> None:
    with pytest.raises(BadFile, match="No such file or directory"):
        find_model(text)


@given(st.text(max_size=40))
def test_any_text_is_a_model_or_refused_in_one_line(text: str) -> None:
    try:
        find_model(text)
    except MemcalcError as refusal:
        assert "\n" not in str(refusal)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("t4", "t4"),
        ("Tesla T4", "t4"),
        ("l40s", "l40s"),
        ("NVIDIA L40S", "l40s"),
        ("rtx-a6000", "rtx-a6000"),
        ("A6000", "rtx-a6000"),
        ("rtx4090", "rtx4090"),
        ("RTX 4090", "rtx4090"),
        ("4090", "rtx4090"),
        ("NVIDIA GeForce RTX 4090", "rtx4090"),
        ("geforce_rtx-3080_ti", "rtx3080ti"),
        ("a100-80gb", "a100-80gb"),
        ("A100 80GB", "a100-80gb"),
        ("a100", "a100-80gb"),
        ("NVIDIA A100-SXM4-40GB", "a100-40gb"),
        ("H100", "h100"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA RTX 6000 Ada Generation", "rtx6000-ada"),
        ("Quadro RTX 6000", "quadro-rtx6000"),
    ],
)
def test_a_card_is_found_by_the_names_that_people_and_drivers_use(text: str, key: str) -> None:
    assert find_gpu(text).key == key


def test_a_bare_size_is_the_default_card_with_that_memory() -> None:
    card, default = find_gpu("24 GiB"), find_gpu(DEFAULT_GPU)
    assert (card.key, card.memory_bytes, card.memory_source) == ("24gib", 24 * GIB, "given")
    assert (card.capability, card.sm_count) == (default.capability, default.sm_count)
    assert card.context_bytes is None


def test_a_bare_size_of_nothing_is_refused() -> None:
    with pytest.raises(InvalidWorkload, match="holds nothing"):
        find_gpu("0GiB")


@pytest.mark.parametrize("text", ["", "nvidia", "rtx", "rtx9090", "24", "-24GiB", "a100 laptop"])
def test_an_unknown_card_is_refused_with_the_remedy(text: str) -> None:
    with pytest.raises(UnknownName, match="memcalc gpus lists them, or give its memory, such as 24GiB"):
        find_gpu(text)


def test_an_unknown_card_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match="rtx4090"):
        find_gpu("rtx4099")


@given(st.text(max_size=40))
def test_any_text_is_a_card_or_refused_in_one_line(text: str) -> None:
    try:
        find_gpu(text)
    except MemcalcError as refusal:
        assert "\n" not in str(refusal)
