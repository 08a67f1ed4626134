"""The control groups (cgroups) that limit this process on Linux: a container's, a batch job's, systemd's."""

from __future__ import annotations

import contextlib
from pathlib import Path, PurePosixPath

MOUNT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")  # lines "number:controllers:path"; version 2 names no controllers


def folders(controller: str) -> list[Path]:
    """Return the folders of the groups that limit this process's use of "memory" or "cpu": its own and all above it.

    Both versions of control groups are looked at. A container may see its own group as the root, or be told a path of
    its host that is not there; so folders need not exist, and the root is always among them. Empty off Linux.
    """
    paths: list[tuple[Path, PurePosixPath]] = []
    with contextlib.suppress(OSError, ValueError):
        for line in OWN.read_text().splitlines():
            _, names, path = line.split(":", 2)
            if not names or controller in names.split(","):
                top = MOUNT / controller if names else MOUNT
                paths.append((top, PurePosixPath(path).relative_to("/")))
    return [top / part for top, path in paths for part in (path, *path.parents)]
