"""A model's config.json by its hub id, and nothing else of it. The library keeps it in its own cache.

What the library heeds holds: HF_TOKEN, HF_HUB_OFFLINE, HF_ENDPOINT, HF_HOME.
"""

import threading
from collections.abc import Callable

from memcalc.catalog.reading import LARGEST_FILE
from memcalc.errors import BadFile, MemcalcError, MissingPackage, shown

ANSWER_WITHIN = 10.0  # seconds for each answer of the hub
ALL_WITHIN = 20.0  # seconds in all: resolving a name knows no limit of its own

_INSTEAD = "give a folder with its config.json"


def config_file(repo_id: str) -> str:
    """The path of the fetched, or the cached, config.json.

    Raises LookupError, with the reason, where the hub has none or cannot be reached; BadFile where it may not be
    read; MissingPackage.
    """
    try:
        from huggingface_hub.utils.tqdm import disable_progress_bars
    except ImportError:
        raise MissingPackage(f"huggingface_hub, to fetch the config.json of {shown(repo_id)}", "hub") from None
    disable_progress_bars()
    try:
        return _within(ALL_WITHIN, lambda: _fetched(repo_id))
    except TimeoutError:
        raise LookupError(f"the hub did not answer within {ALL_WITHIN:g} seconds: {_INSTEAD}") from None


def _fetched(repo_id: str) -> str:
    from huggingface_hub import errors, get_hf_file_metadata, hf_hub_download, hf_hub_url

    name = "config.json"
    try:
        try:
            size = get_hf_file_metadata(hf_hub_url(repo_id, name), timeout=ANSWER_WITHIN).size
        except errors.OfflineModeIsEnabled:
            return hf_hub_download(repo_id, name, local_files_only=True)
        if size is None or size > LARGEST_FILE:
            raise BadFile(repo_id, f"its config.json is larger than {LARGEST_FILE:,} bytes: too large to be a config")
        return hf_hub_download(repo_id, name, etag_timeout=ANSWER_WITHIN)
    except errors.GatedRepoError:
        reason = f"gated: accept its terms on huggingface.co/{repo_id} and set HF_TOKEN, or {_INSTEAD}"
        raise BadFile(repo_id, reason) from None
    except errors.RepositoryNotFoundError:
        raise LookupError("the hub has no such model, or a private one: HF_TOKEN opens it") from None
    except errors.LocalEntryNotFoundError:
        raise LookupError(f"HF_HUB_OFFLINE is set and its config.json is not in the cache: {_INSTEAD}") from None
    except errors.EntryNotFoundError:
        raise LookupError(f"the hub has it without a config.json: {_INSTEAD}") from None
    except MemcalcError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever an HTTP library raises where there is no network
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise LookupError(f"the hub could not be asked ({lines[0]}): {_INSTEAD}") from None


def _within(seconds: float, work: Callable[[], str]) -> str:
    """What `work` returns or raises, or TimeoutError; the thread left behind ends with the program."""
    outcome: list[str | Exception] = []

    def run() -> None:
        try:
            outcome.append(work())
        except Exception as error:  # noqa: BLE001 - raised again in the thread that waits
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if not outcome:
        raise TimeoutError
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]
