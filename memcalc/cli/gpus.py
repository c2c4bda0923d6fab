"""`memcalc gpus`."""

from collections.abc import Iterator

import click

from memcalc.cli.listing import Column, Entry, Listing, listing_options, search, show

EXAMPLES = ("memcalc gpus", "memcalc gpus a100", "memcalc gpus rtx 24", "memcalc gpus --json")
_NOTE = "total: seen in public prints of nvidia-smi, or derived from the card's own figures"


@click.command(cls=Listing, examples=EXAMPLES)
@listing_options
def gpus(words: tuple[str, ...], as_json: bool) -> None:
    """List the graphics cards that --gpu knows, with the memory that the driver reports. WORDS narrow the list."""
    show(search("GPU", _entries(), words, _texts), as_json, _columns(), _details, _NOTE)


def _entries() -> Iterator[Entry]:
    from memcalc.catalog.find import gpus
    from memcalc.catalog.tables import cards
    from memcalc.units import GIB

    rows = cards()
    for card in gpus():
        row = rows[card.key]
        yield {
            "name": card.key,
            "driver_name": card.name,
            "aliases": row.get("aliases", []),
            "stands_for": row.get("choices", {}),
            "memory_bytes": card.memory_bytes,
            "memory_gib": round(card.memory_bytes / GIB, 2),
            "memory_source": card.memory_source,
            "capability": list(card.capability),
            "sm_count": card.sm_count,
            "context_bytes": card.context_bytes,
            "context_source": card.context_source,
        }


def _texts(entry: Entry) -> list[str]:
    marketed = f"{round(entry['memory_gib'])}gb"
    return [entry["name"], entry["driver_name"], *entry["aliases"], *entry["stands_for"], marketed]


def _columns() -> list[Column]:
    from memcalc.units import gib

    def context(entry: Entry) -> str:
        return "–" if entry["context_bytes"] is None else gib(entry["context_bytes"])

    return [
        Column("card", lambda entry: entry["name"]),
        Column("memory", lambda entry: gib(entry["memory_bytes"]), figure=True),
        Column("total", lambda entry: entry["memory_source"]),
        Column("capability", lambda entry: ".".join(map(str, entry["capability"])), figure=True),
        Column("context", context, figure=True),
    ]


def _details(entry: Entry) -> Iterator[tuple[str, str]]:
    yield "driver's name", entry["driver_name"]
    yield "SMs", str(entry["sm_count"])
    if entry["aliases"]:
        yield "also", ", ".join(entry["aliases"])
    for name, why in entry["stands_for"].items():
        yield f"also {name}", why
    if entry["context_source"]:
        yield "context from", entry["context_source"]
