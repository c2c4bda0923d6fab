"""Files of footprints and of published measurements, which anybody may have written: read line by line, with limits."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from memcalc.catalog.reading import check_regular, parse_object, place, read_object
from memcalc.errors import BadFile, shown
from memcalc.footprint import LEVELS, SCHEMA, Footprint
from memcalc.reporting.console import printable

LONGEST_LINE = 4 * 2**20  # bytes; a footprint with a thousand blocks has a tenth of it
PUBLISHED = "memcalc.published/1"

_LONGEST_NAME = 100
_MOST_NOTES = 50  # of one file: what more there is, is counted
_PUBLISHED_KEYS = {"schema", "id", "source", "workload", "measured", "versions", "notes"}
_FOOTPRINT_KEYS = {"schema", *Footprint.__dataclass_fields__}


@dataclass(frozen=True)
class Row:
    """A footprint from a file, and whose it is."""

    name: str  # a published row's id, or the file and the line
    source: str  # who measured it
    footprint: Footprint


@dataclass
class Note:
    """Something in a file that the report does without."""

    place: str
    reason: str
    times: int = 1


def read(paths: Sequence[str]) -> tuple[list[Row], list[Note]]:
    """The rows of all files, in order, and what could not be read, by file and line.

    A folder stands for the .jsonl files within; a .json file has to be named, since any config is one.
    Raises BadFile for a path that is not there at all.
    """
    rows: list[Row] = []
    notes: list[Note] = []
    for path in paths:
        for file in _files(path):
            found, missed = _read_file(file)
            rows += found
            notes += missed
    return rows, notes


def _files(path: str) -> list[str]:
    given = os.path.expanduser(path)
    if not os.path.isdir(given):
        check_regular(given)
        return [given]
    found = [os.path.join(folder, name) for folder, _, names in os.walk(given) for name in names]
    files = sorted(file for file in found if file.endswith(".jsonl"))
    if not files:
        raise BadFile(place(path), "this folder holds no .jsonl file")
    return files


def _read_file(path: str) -> tuple[list[Row], list[Note]]:
    rows: list[Row] = []
    notes: dict[str, Note] = {}

    def note(where: str, reason: str) -> None:
        """The same reason again is counted; of very many reasons the last ones are."""
        if reason not in notes and len(notes) >= _MOST_NOTES:
            reason = "and further lines, for further reasons"
        if reason in notes:
            notes[reason].times += 1
        else:
            notes[reason] = Note(where, reason)

    try:
        for line, data in _objects(path):
            where = place(path) if line is None else f"{place(path)}:{line}"
            if isinstance(data, BadFile):
                note(where, _reason(data, where))
                continue
            try:
                rows.append(_row(data, where))
            except BadFile as error:
                note(where, _reason(error, where))
                continue
            known = _PUBLISHED_KEYS if data["schema"] == PUBLISHED else _FOOTPRINT_KEYS
            for key in sorted(data.keys() - known):
                note(where, f"unknown key {shown(key)}")
    except (BadFile, OSError) as error:
        note(place(path), _reason(error, place(path)))
    return rows, list(notes.values())


def _reason(error: Exception, where: str) -> str:
    return printable(str(error).removeprefix(f"{where}: "))


def _objects(path: str) -> Iterator[tuple[int | None, dict[str, Any] | BadFile]]:
    """Line number and object of every line; one object without a line where the file is laid out over lines."""
    check_regular(path)
    with open(path, "rb") as file:
        number = 0
        while line := file.readline(LONGEST_LINE + 1):
            number += 1
            if len(line) > LONGEST_LINE:
                while line and not line.endswith(b"\n"):
                    line = file.readline(LONGEST_LINE)
                yield number, BadFile(f"{place(path)}:{number}", f"a line of more than {LONGEST_LINE:,} bytes")
                continue
            if number == 1 and line.strip() == b"{":
                yield None, read_object(path, LONGEST_LINE)
                return
            if line.strip():
                try:
                    yield number, parse_object(line, place(path), number)
                except BadFile as error:
                    yield number, error


def _row(data: Mapping[str, Any], where: str) -> Row:
    """The row that an object is. Raises BadFile where it is none."""
    schema = data.get("schema")
    if schema == PUBLISHED:
        return _published(data, where)
    if schema != SCHEMA:
        raise BadFile(where, f"schema is {shown(schema)}: neither {SCHEMA} nor {PUBLISHED}")
    footprint = Footprint.from_json(data, where)
    device = footprint.workload.get("device", "")
    if device != "cpu":  # the CPU's name decides nothing
        device = footprint.measured.get("name") or device
    source = f"{footprint.producer} {device}" if footprint.producer == "profile" else footprint.producer
    return Row(short(where), short(source), footprint)


def _published(data: Mapping[str, Any], where: str) -> Row:
    """A published measurement as a footprint: what it says, and nothing else."""
    source, measured = data.get("source"), data.get("measured")
    if not isinstance(source, Mapping) or not isinstance(measured, Mapping):
        raise BadFile(where, "source and measured must be objects")
    phases = measured.get("phases", [])
    if not isinstance(phases, list) or not all(isinstance(_name(phase), str) for phase in phases):
        raise BadFile(where, "measured.phases must be objects, each with its name")
    levels = {phase["name"]: dict(phase) for phase in phases}
    for name, end in (("load", "after_load_allocated"), ("optimizer", "end_allocated")):
        if measured.get(end) is not None:
            levels.setdefault(name, {"name": name})["allocated_end"] = measured[end]
    blank = {"allocated_end": None, "allocated_peak": None, "reserved_peak": None}
    footprint = Footprint.from_json(
        {
            "schema": SCHEMA,
            "producer": "published",
            "workload": data.get("workload"),
            "versions": data.get("versions", {}),
            "phases": [{**blank, **phase} for phase in levels.values()],
            **{name: measured[name] for name in LEVELS if name in measured},
            "measured": {name: value for name, value in measured.items() if name not in (*LEVELS, "phases")},
        },
        where,
    )
    return Row(short(data.get("id", where)), short(source.get("name", "unknown")), footprint)


def _name(phase: object) -> object:
    return phase.get("name") if isinstance(phase, Mapping) else None


def short(text: object) -> str:
    """A name that came from a file: printable, and no longer than a table takes."""
    line = printable(text)
    return line if len(line) <= _LONGEST_NAME else line[: _LONGEST_NAME - 1] + "…"
