"""config.json by hub id: the real client against a hub of our own, and what each refusal says."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from memcalc.catalog import hub
from memcalc.catalog.reading import LARGEST_FILE
from memcalc.errors import BadFile, MissingPackage

CONFIG = json.dumps({"model_type": "llama", "hidden_size": 64}).encode()
REFUSALS = {
    "/mine/absent": (404, "RepoNotFound"),
    "/mine/gated": (403, "GatedRepo"),
    "/mine/bare": (404, "EntryNotFound"),
}
config_file = hub.config_file  # the fixture of this folder puts another in its place


class Hub(BaseHTTPRequestHandler):
    """Answers as huggingface.co does for one file; "mine/private" opens to a token."""

    def do_GET(self) -> None:
        repo = self.path.partition("/resolve/")[0]
        status, code = REFUSALS.get(repo, (200, ""))
        if repo == "/mine/private" and self.headers["Authorization"] != "Bearer secret":
            status, code = 401, "RepoNotFound"
        body = CONFIG if status == 200 else b""
        self.send_response(status)
        self.send_header("Content-Length", str(LARGEST_FILE + 1 if repo == "/mine/large" else len(body)))
        self.send_header("X-Repo-Commit", "a" * 40)
        self.send_header("ETag", '"' + "b" * 40 + '"')
        if code:
            self.send_header("X-Error-Code", code)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815 - http.server's word

    def log_message(self, *_: object) -> None:
        """No log."""


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def client(endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """huggingface_hub turned to our hub, with an empty cache."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    return tmp_path


def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def test_config_json_is_fetched_and_nothing_else(client: Path) -> None:
    file = Path(config_file("mine/open"))
    assert file.read_bytes() == CONFIG
    assert client in file.parents
    assert [path.name for path in client.rglob("snapshots/*/*")] == ["config.json"]


def test_offline_the_cache_answers(client: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = config_file("mine/open")
    offline(monkeypatch)
    assert config_file("mine/open") == fetched


def test_offline_without_a_cached_file_says_so(client: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offline(monkeypatch)
    with pytest.raises(LookupError, match=r"HF_HUB_OFFLINE is set and its config\.json is not in the cache"):
        config_file("mine/open")


def test_a_token_opens_a_private_model(client: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LookupError, match="no such model, or a private one: HF_TOKEN opens it"):
        config_file("mine/private")
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert Path(config_file("mine/private")).read_bytes() == CONFIG


def test_a_gated_model_says_what_to_accept(client: Path) -> None:
    with pytest.raises(BadFile, match=r"gated: accept its terms on huggingface\.co/mine/gated and set HF_TOKEN"):
        config_file("mine/gated")


@pytest.mark.parametrize(
    ("repo_id", "reason"),
    [
        ("mine/absent", "the hub has no such model"),
        ("mine/bare", "the hub has it without a config.json"),
        ("-mine/not-an-id", "the hub could not be asked"),
    ],
)
def test_a_model_that_is_not_there_says_why_in_one_line(repo_id: str, reason: str, client: Path) -> None:
    with pytest.raises(LookupError, match=reason) as refusal:
        config_file(repo_id)
    assert "\n" not in str(refusal.value)


def test_a_file_too_large_to_be_a_config_is_not_fetched(client: Path) -> None:
    with pytest.raises(BadFile, match="larger than 1,048,576 bytes"):
        config_file("mine/large")
    assert list(client.rglob("config.json")) == []


def test_no_network_is_one_line(client: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    nowhere = "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", nowhere)
    with pytest.raises(LookupError, match="the hub could not be asked"):
        config_file("mine/open")


def test_a_hub_that_never_answers_is_given_up(client: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forever(repo_id: str) -> str:
        time.sleep(60)
        return repo_id

    monkeypatch.setattr(hub, "_fetched", forever)
    monkeypatch.setattr(hub, "ALL_WITHIN", 0.1)
    with pytest.raises(LookupError, match=r"did not answer within 0\.1 seconds"):
        config_file("mine/open")


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "huggingface_hub"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingPackage, match=r"fetch the config.json of 'mine/open': pip install 'memcalc\[hub\]'"):
        config_file("mine/open")


def test_the_command_line_takes_a_hub_id(endpoint: str, tmp_path: Path) -> None:
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "-m", "memcalc", "estimate", "--model", "mine/absent", "--json"]
    process = subprocess.run(command, env=environment, capture_output=True, check=False, text=True)
    assert (process.returncode, process.stdout) == (2, "")
    assert process.stderr.startswith("memcalc: error: unknown model 'mine/absent'; ")
