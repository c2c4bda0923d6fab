import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memcalc.catalog.reading import LARGEST_FILE, read_model_config, read_object
from memcalc.errors import BadFile, MemcalcError


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not JSON"),
        (b"hidden_size: 4096", "not JSON"),
        (b'{"model_type": "llama", "hidden', "not JSON"),
        (b"\x7fELF\x02\x01\x01\x00\xff\xfe", "not UTF-8 text"),
        ('{"model_type": "llama"}'.encode("utf-16"), "not UTF-8 text"),
        (b'{"hidden_size": NaN}', "NaN is not a JSON number"),
        (b'{"hidden_size": -Infinity}', "-Infinity is not a JSON number"),
        (b'{"a": 1, "b": 2, "a": 3}', "the key 'a' stands there twice"),
        (b'{"a": {"b": 1, "b": 1}}', "the key 'b' stands there twice"),
        (b"[" * 100_000 + b"]" * 100_000, "nested more than 20 levels deep"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested more than 20 levels deep"),
        (b'{"a":' + b"[" * 50 + b"]" * 50 + b"}", "nested more than 20 levels deep"),
        (b'{"hidden_size": ' + b"9" * 5000 + b"}", "a number of too many digits"),
        (b"[1, 2]", "a JSON object, {...}, is needed"),
        (b'"llama"', "a JSON object, {...}, is needed"),
        (b"null", "a JSON object, {...}, is needed"),
    ],
)
def test_a_file_that_is_no_json_object_is_refused_in_one_line(content: bytes, said: str, tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_bytes(content)
    with pytest.raises(BadFile) as refusal:
        read_object(str(file))
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert str(refusal.value).startswith(str(file))


def test_a_fault_in_the_json_is_named_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text('{\n "a": 1,\n "b": oops\n}')
    with pytest.raises(BadFile, match=r"config\.json:3: not JSON"):
        read_object(str(file))


def test_a_duplicate_among_very_many_keys_is_found_quickly(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text("{" + ",".join(f'"{n}":0' for n in range(90_000)) + ',"89999":0}')
    with pytest.raises(BadFile, match="'89999' stands there twice"):
        read_object(str(file))


def test_a_gigabyte_is_refused_without_reading_it(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    with file.open("wb") as sparse:
        sparse.truncate(2**30)
    with pytest.raises(BadFile, match="larger than 1,048,576 bytes"):
        read_object(str(file))


def test_a_file_of_just_the_largest_size_is_read(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text('{"a": 1}'.ljust(LARGEST_FILE))
    assert read_object(str(file)) == {"a": 1}


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero"), tmp_path):
        with pytest.raises(BadFile, match="not a regular file"):
            read_object(str(path))


def test_a_file_without_permission_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "config.json"
    file.write_text("{}")
    file.chmod(0)
    if os.geteuid() == 0:  # root may read everything: let the open say no instead

        def refused(path: str, mode: str) -> None:
            raise PermissionError(13, "Permission denied", path)

        monkeypatch.setattr("builtins.open", refused)
    with pytest.raises(BadFile, match="cannot be read: Permission denied"):
        read_object(str(file))


@pytest.mark.parametrize("path", ["/nowhere/config.json", "/a\0b", "/" + "x" * 5000, "/dev/null/config.json"])
def test_a_path_that_leads_nowhere_is_refused(path: str) -> None:
    with pytest.raises(BadFile):
        read_object(path)


def test_a_byte_order_mark_does_not_matter(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_object(str(file)) == {"a": 1}


def test_a_path_is_named_in_one_line_whatever_its_characters(tmp_path: Path) -> None:
    file = tmp_path / "two\nlines.json"
    file.write_text("nothing")
    with pytest.raises(BadFile) as refusal:
        read_object(str(file))
    assert "\n" not in str(refusal.value)


def test_a_model_is_read_from_its_folder_and_from_a_file_of_any_name(tmp_path: Path) -> None:
    config = {"model_type": "llama", "hidden_size": 64}
    for name in ("config.json", "mine.txt"):
        (tmp_path / name).write_text(json.dumps(config))
    assert read_model_config(str(tmp_path)) == (config, str(tmp_path / "config.json"))
    assert read_model_config(str(tmp_path / "mine.txt")) == (config, str(tmp_path / "mine.txt"))


def test_a_home_directory_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    assert read_model_config("~")[0] == {"model_type": "llama"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"peft_type": "LORA", "r": 8}', "give it with --peft-config"),
        ('{"hidden_size": 4096}', '"model_type" (such as "llama") is missing'),
        ('{"model_type": 7}', '"model_type" (such as "llama") is missing'),
    ],
)
def test_another_kind_of_config_is_told_from_a_models(content: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(BadFile) as refusal:
        read_model_config(str(tmp_path))
    assert said in str(refusal.value)


def test_a_folder_without_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=r"this folder holds no config\.json"):
        read_model_config(str(tmp_path))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(st.binary(max_size=200), st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
)
def test_any_bytes_are_read_or_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "config.json"
    file.write_bytes(content)
    try:
        assert isinstance(read_object(str(file)), dict)
    except MemcalcError as refusal:
        assert "\n" not in str(refusal)
