"""Wrap the private parts of Django's autoreloader; a test in tests/unit/compat notices a change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.utils.autoreload import StatReloader, autoreload_started, get_child_arguments

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path


def own_command_line() -> list[str]:
    """Return the command line that starts this program again, with its arguments.

    Uses ``autoreload.get_child_arguments``. Without it, `dev` could not start its worker as the user started `dev`.
    """
    return [str(argument) for argument in get_child_arguments()]


class ProjectReloader(StatReloader):
    """Django's autoreloader, for the Python files in some folders, and for what Django itself has it watch.

    Overrides ``watched_files``, which is asked for the files each second, and ``notify_file_changed``, which would end
    this process. Were they not called any more, a changed receiver would not restart its worker.

    Args:
        on_change: called with the path of each file that has changed, on the thread that watches.
    """

    def __init__(self, on_change: Callable[[Path], None]) -> None:
        super().__init__()
        self._on_change = on_change
        self._folders: frozenset[Path] = frozenset()

    def add_folders(self, folders: Iterable[Path]) -> None:
        """Watch the Python files in some folders as well, without their subfolders; any thread may call it.

        Args:
            folders: the folders.
        """
        self._folders |= frozenset(folders)  # replaced, never changed: the watching thread iterates over it

    def watch(self) -> None:
        """Watch until `stop` is called; the translations and templates of the project too, as for ``runserver``."""
        autoreload_started.send(sender=self)
        self.run_loop()

    def watched_files(self, include_globs: bool = True) -> Iterator[Path]:
        """Yield the files that are watched."""
        for folder in self._folders:
            yield from folder.glob("*.py")
        if include_globs:
            for folder, patterns in self.directory_globs.items():
                for pattern in patterns:
                    yield from folder.glob(pattern)

    def notify_file_changed(self, path: Any) -> None:
        """Call our own function, and go on watching."""
        self._on_change(path)
