"""The block shape that a conversion uses where no layer names its own."""

import threading
from types import TracebackType

__all__ = ["LinearBlockSparsePattern"]


class LinearBlockSparsePattern:
    """Context in which `from_float` packs blocks of this shape.

    The setting is the process's, so only one thread at a time may be inside.

    Args:
        row_block_size: 1 with 4 columns, or 8 with 1 column.
        col_block_size: 4 or 1.
    """

    rlock = threading.RLock()
    row_block_size = 1
    col_block_size = 4

    def __init__(self, row_block_size: int = 1, col_block_size: int = 4) -> None:
        if (row_block_size, col_block_size) not in ((1, 4), (8, 1)):
            raise ValueError(
                "LinearBlockSparsePattern: the block must be (1, 4) or (8, 1), "
                f"got ({row_block_size}, {col_block_size})"
            )
        self._sizes = (row_block_size, col_block_size)

    def __enter__(self) -> None:
        cls = LinearBlockSparsePattern
        cls.rlock.acquire()
        self._before = cls.block_size()
        cls.row_block_size, cls.col_block_size = self._sizes

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        cls = LinearBlockSparsePattern
        cls.row_block_size, cls.col_block_size = self._before
        cls.rlock.release()

    @staticmethod
    def block_size() -> tuple[int, int]:
        """The block shape in force."""
        return LinearBlockSparsePattern.row_block_size, LinearBlockSparsePattern.col_block_size
