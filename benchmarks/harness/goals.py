"""Targets and floors: what a figure must reach, and what it did reach."""

from dataclasses import asdict, dataclass

MET, SHORT, BELOW, MISSED, INFO = "target met", "above floor", "below target", "FLOOR MISSED", ""


@dataclass(frozen=True)
class Goal:
    """`got` is compared with a target (wanted) and a floor (must)."""

    name: str
    got: float
    target: float | None = None
    floor: float | None = None
    unit: str = "x"
    larger_is_better: bool = True
    # A floor that is about another figure than the target (a roof fraction as
    # target, a ratio as floor) is a second Goal without target.
    note: str = ""

    def _reaches(self, limit):
        if self.got != self.got:  # NaN reaches nothing
            return False
        return self.got >= limit if self.larger_is_better else self.got <= limit

    @property
    def verdict(self):
        if self.floor is not None and not self._reaches(self.floor):
            return MISSED
        if self.target is not None:
            return MET if self._reaches(self.target) else BELOW if self.floor is None else SHORT
        return MET if self.floor is not None else INFO

    def as_dict(self):
        return {**asdict(self), "verdict": self.verdict}
