"""The folders below one directory, opened one component at a time and never through a link.

Other users may be able to write to the directory of a store, or to a node's cache. A link there must not lead a read,
a creation or a deletion to another place. So every folder is opened relative to the one above it, with ``O_NOFOLLOW``,
and everything is done relative to an open folder. Only the path of the top folder may lead through links: the
operator chooses them.
"""

from __future__ import annotations

import errno
import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_FOLDER = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_WALK = _FOLDER | getattr(os, "O_PATH", os.O_RDONLY)
"""To pass through a folder, which needs no permission to read it."""
_OBJECT = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
"""To open an object. ``O_NONBLOCK``: the opening of a FIFO does not wait for a writer."""
_ATTEMPTS = 3
"""A folder is made again if another process removes it at once. After so many attempts it is an error."""


class Sharing:
    """The modes and the group of what is created in a tree: those of its top folder.

    The umask of the process that happens to save first does not decide who may use a store.
    """

    __slots__ = ("_folder_mode", "_group", "file_mode")

    def __init__(self, top: os.stat_result) -> None:
        mode = stat.S_IMODE(top.st_mode)
        self._folder_mode = mode & ~stat.S_ISUID
        # In a sticky folder users do not change each other's files.
        self.file_mode = mode & (0o644 if mode & stat.S_ISVTX else 0o666)
        self._group = top.st_gid

    def apply(self, descriptor: int) -> None:
        """Set the modes and the group of what this process has just created, where the file system allows it."""
        status = os.fstat(descriptor)
        if status.st_uid != os.geteuid():
            return
        if status.st_gid != self._group:
            _attempt(os.fchown, descriptor, -1, self._group)
        mode = self._folder_mode if stat.S_ISDIR(status.st_mode) else self.file_mode
        if stat.S_IMODE(status.st_mode) != mode:
            _attempt(os.fchmod, descriptor, mode)


class Folder:
    """An open folder of a tree. Every name is that of an entry directly in it, and no link is followed.

    An OSError that a method raises has the whole path as its ``filename``.
    """

    __slots__ = ("descriptor", "path")

    def __init__(self, descriptor: int, path: str) -> None:
        self.descriptor = descriptor
        self.path = path

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)

    def stat(self, name: str) -> os.stat_result | None:
        """The status of an entry, of a link itself; None if there is no such entry."""
        with _at(f"{self.path}/{name}"):
            try:
                return os.stat(name, dir_fd=self.descriptor, follow_symlinks=False)
            except FileNotFoundError:
                return None

    def open_object(self, name: str) -> int | None:
        """Open a regular file for reading; None if there is no such entry. Raises OSError for anything else."""
        with _at(f"{self.path}/{name}"):
            try:
                descriptor = os.open(name, _OBJECT, dir_fd=self.descriptor)
            except FileNotFoundError:
                return None
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.close(descriptor)
                raise OSError(errno.EINVAL, "it is not a regular file")
            return descriptor

    def create_file(self, name: str, sharing: Sharing | None = None) -> int:
        """Create a file that is not there yet, and open it for writing."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with _at(f"{self.path}/{name}"):
            descriptor = os.open(name, flags, 0o666, dir_fd=self.descriptor)
            if sharing is not None:
                sharing.apply(descriptor)
            return descriptor

    def open_lock(self, name: str) -> int:
        """Open a file that serves as a lock and is made if it is missing."""
        flags = os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        with _at(f"{self.path}/{name}"):
            descriptor = os.open(name, flags, 0o666, dir_fd=self.descriptor)
            _let_its_owner(descriptor, stat.S_IRUSR | stat.S_IWUSR)
            return descriptor

    def remove_file(self, name: str) -> bool:
        """Remove a regular file; False if there is no such entry. Raises OSError for a link, a folder, a device …"""
        status = self.stat(name)
        if status is None:
            return False
        with _at(f"{self.path}/{name}"):
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "it is not a regular file")
            try:
                os.unlink(name, dir_fd=self.descriptor)
            except FileNotFoundError:
                return False
        return True

    def make_folder(self, name: str) -> bool:
        """Make a folder; False if there is an entry of that name."""
        with _at(f"{self.path}/{name}"):
            try:
                os.mkdir(name, dir_fd=self.descriptor)
            except FileExistsError:
                return False
        return True

    def remove_folder(self, name: str) -> None:
        """Remove an empty folder."""
        with _at(f"{self.path}/{name}"):
            os.rmdir(name, dir_fd=self.descriptor)

    def link(self, name: str, target: Folder, target_name: str) -> None:
        """Give a file one more name, which replaces nothing."""
        with _at(f"{target.path}/{target_name}"):
            os.link(
                name,
                target_name,
                src_dir_fd=self.descriptor,
                dst_dir_fd=target.descriptor,
                follow_symlinks=False,
            )

    def rename(self, name: str, target: Folder, target_name: str) -> None:
        """Rename a file, over whatever has the new name."""
        with _at(f"{target.path}/{target_name}"):
            os.rename(name, target_name, src_dir_fd=self.descriptor, dst_dir_fd=target.descriptor)

    def entries(self) -> Iterator[os.DirEntry[str]]:
        """The entries of the folder. Their methods work until the iteration ends."""
        with _at(self.path):
            readable = os.open(".", os.O_RDONLY | _FOLDER, dir_fd=self.descriptor)
            try:
                with os.scandir(readable) as found:
                    yield from found
            finally:
                os.close(readable)

    def sync(self) -> None:
        """Make new names durable. Raises OSError; PermissionError if the folder must not be read."""
        with _at(self.path):
            readable = os.open(".", os.O_RDONLY | _FOLDER, dir_fd=self.descriptor)
            try:
                os.fsync(readable)
            finally:
                os.close(readable)


class Tree:
    """Opens the folders below the directory ``top``."""

    def __init__(self, top: str) -> None:
        self.top = top

    def folder(self, name: str) -> Folder | None:
        """Open a folder of plain components, ``""`` for the top itself; None if there is no such folder.

        Raises OSError, also where a component is a link or a file.
        """
        current = self._open_top()
        for part in name.split("/") if name else ():
            if current is None:
                return None
            with current:
                current = _below(current, part)
        return current

    def make_folder(self, name: str) -> tuple[Folder, Sharing]:
        """Open a folder, and make it and those above it if they are missing, but for the top. Raises OSError."""
        current = self._open_top()
        if current is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.top)
        sharing = Sharing(os.fstat(current.descriptor))
        for part in name.split("/") if name else ():
            with current:
                current = _made(current, part, sharing)
        return current, sharing

    def _open_top(self) -> Folder | None:
        flags = _WALK & ~os.O_NOFOLLOW
        with _at(self.top):
            try:
                return Folder(os.open(self.top, flags), self.top)
            except FileNotFoundError:
                _ask_the_server(os.path.dirname(self.top), None)
            try:
                return Folder(os.open(self.top, flags), self.top)
            except FileNotFoundError:
                return None


class _at:  # noqa: N801 - used like a function
    """Gives an OSError the path that it is about."""

    __slots__ = ("_path",)

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, _type: object, error: object, _traceback: object) -> None:
        if isinstance(error, OSError):
            error.filename, error.filename2 = self._path, None


def _below(folder: Folder, name: str) -> Folder | None:
    """Open a folder in another one; None if it is missing."""
    if (found := _opened(folder, name)) is not None:
        return found
    _ask_the_server(".", folder.descriptor)
    return _opened(folder, name)


def _made(folder: Folder, name: str, sharing: Sharing) -> Folder:
    """Open a folder in another one, and make it if it is missing."""
    for _ in range(_ATTEMPTS):
        if (found := _opened(folder, name)) is not None:
            return found
        if folder.make_folder(name):
            _share(folder, name, sharing)
    raise OSError(errno.ENOENT, "it disappears again and again", f"{folder.path}/{name}")


def _share(folder: Folder, name: str, sharing: Sharing) -> None:
    try:
        walking = os.open(name, _WALK, dir_fd=folder.descriptor)
    except OSError:  # another process has put something else there
        return
    with Folder(walking, f"{folder.path}/{name}"):
        try:
            _let_its_owner(walking, stat.S_IRWXU)
            descriptor = os.open(".", os.O_RDONLY | _FOLDER, dir_fd=walking)
        except OSError:
            return
        try:
            sharing.apply(descriptor)
        finally:
            os.close(descriptor)


def _let_its_owner(descriptor: int, rights: int) -> None:
    """Give this process's user the rights that its umask took from a folder it made, for example 0777."""
    status = os.fstat(descriptor)
    mode = stat.S_IMODE(status.st_mode)
    if rights & ~mode and status.st_uid == os.geteuid():
        # Through /proc, because nothing can be changed through a descriptor that is only for walking.
        _attempt(os.chmod, f"/proc/self/fd/{descriptor}", mode | rights)


def _opened(folder: Folder, name: str) -> Folder | None:
    path = f"{folder.path}/{name}"
    with _at(path):
        try:
            return Folder(os.open(name, _WALK, dir_fd=folder.descriptor), path)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP, errno.EMLINK):
                raise
            status = folder.stat(name)
            if status is None or not stat.S_ISLNK(status.st_mode):
                raise
            text = f"{path} is a symbolic link, and nothing in a store is read or written through one; remove it"
            raise OSError(errno.ELOOP, text) from None


def _ask_the_server(folder: str, relative_to: int | None) -> None:
    """Open a folder in which an entry was missing. A client of NFS may remember that for a minute, and now looks."""
    try:
        os.close(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=relative_to))
    except OSError:  # missing, too; or it may be entered and not read
        return


def _attempt(change: Callable[..., None], *arguments: int | str) -> None:
    """Change a mode or group where the file system and the permissions of this process allow it."""
    try:
        change(*arguments)
    except OSError:
        return
