"""Work that is begun before its result is needed."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from threading import Lock, Thread
from typing import Generic, TypeVar

__all__ = ["Ahead"]

T = TypeVar("T")


class Ahead(Generic[T]):
    """A computation in a thread of its own, which nobody who presses Ctrl-C waits for."""

    def __init__(self, compute: Callable[[], T]) -> None:
        self.compute = compute
        self._lock = Lock()
        self._found: Future[T] | None = None

    def begin(self) -> Future[T]:
        """Begin, if that has not been done."""
        with self._lock:
            if self._found is None:
                self._found = Future()
                Thread(target=self._run, args=[self._found], daemon=True).start()
            return self._found

    def result(self) -> T:
        """What came out; whatever the computation raises is raised here."""
        return self.begin().result()

    def _run(self, found: Future[T]) -> None:
        try:
            found.set_result(self.compute())
        except Exception as error:
            found.set_exception(error)
