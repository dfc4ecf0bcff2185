"""What stands for a key that is not there."""

from __future__ import annotations


class Absent:
    """Stands for a key that is not there; JSON's null is a value."""

    def __repr__(self) -> str:
        return "absent"


ABSENT = Absent()
