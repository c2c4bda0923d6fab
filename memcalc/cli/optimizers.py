"""`memcalc optimizers`."""

from collections.abc import Iterator

import click

from memcalc.cli.listing import Column, Entry, Listing, listing_options, search, show

EXAMPLES = ("memcalc optimizers", "memcalc optimizers adamw", "memcalc optimizers --json")


@click.command(cls=Listing, examples=EXAMPLES)
@listing_options
def optimizers(words: tuple[str, ...], as_json: bool) -> None:
    """List the optimizers that --optimizer knows: what each keeps for a trained parameter. WORDS narrow the list."""
    columns = [
        Column("optimizer", lambda entry: entry["name"]),
        Column("states per parameter", _states),
        Column("step's temporaries", lambda entry: entry["temporaries"]),
    ]
    show(search("optimizer", _entries(), words, _texts), as_json, columns, _details)


def _entries() -> Iterator[Entry]:
    from memcalc.optimizers import OPTIMIZERS

    for name, row in OPTIMIZERS.items():
        yield {
            "name": name,
            "class": row.torch_class,
            "options": dict(row.torch_options),
            "states": list(row.state_names()),
            "with_momentum": row.momentum,
            "temporaries": row.temporaries,
            "source": row.source,
        }


def _states(entry: Entry) -> str:
    momentum = [f"{entry['with_momentum']} (with --momentum)"] if entry["with_momentum"] else []
    return ", ".join(entry["states"] + momentum) or "none"


def _texts(entry: Entry) -> list[str]:
    return [entry["name"], entry["class"]]


def _details(entry: Entry) -> Iterator[tuple[str, str]]:
    chosen = ", ".join(f"{name}={value}" for name, value in entry["options"].items())
    yield "class", f"{entry['class']}({chosen})"
    yield "source", entry["source"]
