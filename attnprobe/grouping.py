"""How candidates are cut into the mini-batches of metrics over features."""

from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Grouping:
    """How candidates are cut into mini-batches.

    Attributes:
        count: Candidates in all.
        size: Candidates in a mini-batch.
        smallest: Fewest candidates in the last one; fewer join the one before.

    >>> [list(Grouping(7, 3, 2).members(at)) for at in range(2)]
    [[0, 1, 2], [3, 4, 5, 6]]
    """

    count: int
    size: int
    smallest: int

    @cached_property
    def last(self) -> int:
        """Number of the last mini-batch."""
        whole, rest = divmod(self.count, self.size)
        return max(0, whole if rest >= self.smallest else whole - 1)

    def of(self, number: int) -> int:
        """Return the mini-batch of a candidate."""
        return min(number // self.size, self.last)

    def members(self, group: int) -> range:
        """Return the candidates of a mini-batch."""
        stop = self.count if group == self.last else (group + 1) * self.size
        return range(group * self.size, stop)
