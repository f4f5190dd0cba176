"""Minimum cut of a small directed graph."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Hashable

INFINITE = 1 << 60


class CutGraph:
    """A graph whose edges cost their capacity where they lead from the source's side to the sink's side."""

    def __init__(self, source: Hashable, sink: Hashable) -> None:
        self.source, self.sink = source, sink
        self._left: dict[Hashable, dict[Hashable, int]] = defaultdict(lambda: defaultdict(int))

    def add(self, start: Hashable, end: Hashable, capacity: int) -> None:
        """Add an edge; parallel edges add up."""
        if start != end:
            self._left[start][end] += capacity
            self._left[end][start] += 0

    def sink_side(self) -> set[Hashable]:
        """Return the smallest set on the sink's side of a cut of least cost.

        Source: Edmonds and Karp (1972): augment along shortest paths; what still reaches the sink remains.
        """
        while (path := self._shortest_path()) is not None:
            flow = min(self._left[a][b] for a, b in path)
            for a, b in path:
                self._left[a][b] -= flow
                self._left[b][a] += flow
        side, queue = {self.sink}, deque([self.sink])
        while queue:
            end = queue.popleft()
            for start in self._left[end]:
                if start not in side and self._left[start][end] > 0:
                    side.add(start)
                    queue.append(start)
        return side

    def _shortest_path(self) -> list[tuple[Hashable, Hashable]] | None:
        parents: dict[Hashable, Hashable] = {self.source: self.source}
        queue = deque([self.source])
        while queue:
            start = queue.popleft()
            for end, capacity in self._left[start].items():
                if capacity > 0 and end not in parents:
                    parents[end] = start
                    queue.append(end)
        if self.sink not in parents:
            return None
        path, node = [], self.sink
        while node != self.source:
            path.append((parents[node], node))
            node = parents[node]
        return path
