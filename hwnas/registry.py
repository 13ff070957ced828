"""Names that users type, and what stands behind them: built in, registered in code, or brought by a plugin."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from hwnas.errors import UsageError

T = TypeVar("T")


class Registry(Generic[T]):
    """A mapping from name to object; unknown names are answered with the known ones.

    Plugins of the entry-point group are loaded at the first look-up that the built-in names do not answer, so that
    they cost nothing to those who do not use them. A broken plugin is named in a warning and skipped.

    Args:
        what: what the objects are, for messages: "cost model".
        group: entry-point group of plugins, "hwnas.cost_models"; an entry point's object is what gets registered.
    """

    def __init__(self, what: str, group: str) -> None:
        self.what = what
        self.group = group
        self._objects: dict[str, T] = {}
        self._plugins_loaded = False

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that registers an object under ``name``.

        Raises:
            ValueError: if the name is taken.
        """

        def add(thing: T) -> T:
            if name in self._objects:
                raise ValueError(f"{self.what} {name!r} is registered already")
            self._objects[name] = thing
            return thing

        return add

    def remove(self, name: str) -> None:
        """Forget ``name`` (tests and notebooks)."""
        del self._objects[name]

    def _load_plugins(self) -> None:
        if self._plugins_loaded:
            return
        self._plugins_loaded = True
        for point in entry_points(group=self.group):
            try:
                self._objects.setdefault(point.name, point.load())
            except Exception as error:
                warnings.warn(
                    f"{self.what} plugin {point.name!r} ({point.value}) is broken and skipped: {error}",
                    stacklevel=3,
                )

    def __contains__(self, name: object) -> bool:
        if name not in self._objects:
            self._load_plugins()
        return name in self._objects

    def __getitem__(self, name: str) -> T:
        if name not in self:
            raise UsageError(f"no {self.what} is called {name!r}; there are: {', '.join(sorted(self))}")
        return self._objects[name]

    def __iter__(self) -> Iterator[str]:
        self._load_plugins()
        return iter(self._objects)
