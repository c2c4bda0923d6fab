"""A timeline of any depth, from one of four layers: the very stream that writing all of them would give.

The layers between the first and the last do the same. A pass over the third of the four is copied for every layer
that was not written; what it frees is a block of its own, or the same block of the layer before or after.
"""

from collections import Counter
from collections.abc import Iterable
from itertools import count, groupby

from memcalc.sections import layers_of, sections
from memcalc.timeline import Mark, Timeline

DEPTH = 4  # layers to write: a first, two in the middle, a last
_BEFORE, _MIDDLE, _LAST = 1, 2, 3

Run = tuple[int | None, list[int]]  # a layer, or None, and the numbers of the events of one pass over it
Place = tuple[int, int]  # a sweep over the layers, and a row's number among those born in its layer's pass


def repeated(timeline: Timeline, layers: str, depth: int) -> Timeline | None:
    """The timeline of `depth` > 4 layers; None where the four do not do the same, and all must be written.

    `layers` is the path of the repeated layers ("model.layers").
    """
    homes = layers_of(timeline, layers)
    where = sections(timeline, layers, DEPTH)
    runs: list[Run] = [(layer, list(events)) for layer, events in groupby(range(len(where)), where.__getitem__)]
    places = _places(timeline, runs)
    if places is None or not _alike(timeline, runs, homes):
        return None
    return _Writer(timeline, layers, depth, homes, places).write(runs)


def _places(timeline: Timeline, runs: list[Run]) -> dict[int, Place] | None:
    """Where each row of layers 1 to 3 is born; None where a sweep does not pass all three, or with other blocks."""
    places: dict[int, Place] = {}
    for number, (layer, events) in enumerate(runs):
        born = _born(timeline, events)
        if layer != _MIDDLE or not born:
            continue
        neighbours = {
            side[0]: _born(timeline, side[1]) for side in (*runs[number - 1 : number], *runs[number + 1 :][:1])
        }
        for rows in (born, neighbours.get(_BEFORE, []), neighbours.get(_LAST, [])):
            if [timeline.nbytes[row] for row in rows] != [timeline.nbytes[row] for row in born]:
                return None
            places.update({row: (number, index) for index, row in enumerate(rows)})
    return places


def _born(timeline: Timeline, events: Iterable[int]) -> list[int]:
    return [timeline.events[at] for at in events if timeline.events[at] >= 0]


def _alike(timeline: Timeline, runs: list[Run], homes: list[int | None]) -> bool:
    """Whether layers 1 and 2 free the same blocks, seen from where they are, in every pass."""
    seen: dict[int, list[Counter[tuple[int, int, str]]]] = {_BEFORE: [], _MIDDLE: []}
    for layer, events in runs:
        if layer is None or layer not in seen:
            continue
        freed: Counter[tuple[int, int, str]] = Counter()
        for row in (~timeline.events[at] for at in events if timeline.events[at] < 0):
            home = homes[row]
            if home is None:
                return False
            freed[home - layer, timeline.nbytes[row], timeline.labels[row][1]] += 1
        seen[layer].append(freed)
    return seen[_BEFORE] == seen[_MIDDLE]


class _Writer:
    """The new timeline under way: rows are numbered anew, in order of birth."""

    def __init__(
        self, old: Timeline, layers: str, depth: int, homes: list[int | None], places: dict[int, Place]
    ) -> None:
        self.old, self.homes, self.places = old, homes, places
        self.prefix, self.last, self.depth = f"{layers}.", depth - 1, depth
        self.new = Timeline()
        self.rows: dict[int, int] = {}  # new rows by `_key`
        self.middle = {place: row for row, place in places.items() if homes[row] == _MIDDLE}
        self.marks = iter([*old.marks, Mark(-1, "phase_end")])
        self.mark = next(self.marks)

    def write(self, runs: list[Run]) -> Timeline:
        copies = range(_MIDDLE, self.last)
        for number, (layer, events) in enumerate(runs):
            if layer == _MIDDLE:
                before = runs[number - 1][0] if number else None
                after = runs[number + 1][0] if number + 1 < len(runs) else None
                rising = before == _BEFORE or after == _LAST
                self._copies(events, copies if rising else reversed(copies))
            else:
                self._once(events, layer)
        while self.mark.at >= 0:
            self._next_mark()
        return self.new

    def _once(self, events: list[int], layer: int | None) -> None:
        """A pass over what is not repeated; layer 3 is the new model's last."""
        old, rows = self.old, self.rows
        beside = {_BEFORE: _MIDDLE, _LAST: self.last - 1}.get(layer or 0, 0)  # the copy that it can free blocks of
        for at in events:
            while self.mark.at == at:
                self._next_mark()
            event = old.events[at]
            if event < 0:
                self.new.death(rows[self._key(~event, beside)])
                continue
            module, op = old.labels[event]
            if layer == _LAST:
                module = self._moved(module, layer, self.last)
            rows[self._key(event, 0)] = self.new.birth(old.nbytes[event], old.categories[event], module, op)

    def _copies(self, events: list[int], copies: Iterable[int]) -> None:
        """The middle layer's pass for every layer between the second and the last."""
        old, new, rows = self.old, self.new, self.rows
        born = _born(old, events)
        nbytes, categories = [old.nbytes[row] for row in born], [old.categories[row] for row in born]
        labels, modules = [old.labels[row] for row in born], {old.labels[row][0] for row in born}
        first = born[0] if born else 0
        steps = [
            event - first if event >= 0 else ~self._seen_from_here(~event)
            for event in map(old.events.__getitem__, events)
        ]
        for copy in copies:
            start = len(new.nbytes)
            rows.update(zip([row * self.depth + copy for row in born], count(start)))
            new.nbytes += nbytes
            new.categories += categories
            moved = {module: self._moved(module, _MIDDLE, copy) for module in modules}
            new.labels += [(moved[module], op) for module, op in labels]
            new.events += [start + step if step >= 0 else ~rows[copy + ~step] for step in steps]

    def _key(self, row: int, copy: int) -> int:
        """Where the new row of an old one is found: by the middle layer's twin and the new layer, or by itself.

        copy: the new layer of a block of the middle one.
        """
        home, twin = self.homes[row], self._twin(row)
        if twin is None:
            return row * self.depth
        return twin * self.depth + {_BEFORE: _BEFORE, _LAST: self.last}.get(home or 0, copy)

    def _seen_from_here(self, row: int) -> int:
        """The same for any copy of the middle layer that frees it: to be added to the copy's number."""
        home, twin = self.homes[row], self._twin(row)
        assert home is not None
        assert twin is not None
        return twin * self.depth + home - _MIDDLE

    def _twin(self, row: int) -> int | None:
        """The middle layer's block that does for it what this one does for its own layer."""
        if self.homes[row] == _MIDDLE:
            return row
        place = self.places.get(row)
        return None if place is None else self.middle[place]

    def _moved(self, module: str, layer: int, to: int) -> str:
        return module.replace(f"{self.prefix}{layer}", f"{self.prefix}{to}", 1)

    def _next_mark(self) -> None:
        self.new.marks.append(self.mark._replace(at=len(self.new.events)))
        self.mark = next(self.marks)
