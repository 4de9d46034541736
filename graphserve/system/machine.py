"""What this machine lets us use: CPUs, GPUs and open files. Any process."""

from __future__ import annotations

import contextlib
import os
import resource
from pathlib import Path


def cpus() -> int:
    """Return how many CPUs this process may use: the smaller of its affinity and its cgroup's
    quota, at least 1.

    `os.cpu_count()` knows neither. Source of the quota: `cpu.max` of cgroup v2, `cpu.cfs_quota_us`
    of v1.
    """
    available = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    quota = _cgroup_quota()
    return max(1, available if quota is None else min(available, int(quota + 0.999)))


def gpus() -> list[str]:
    """Return the GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` names them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [
            name for name in (part.strip() for part in visible.split(",")) if name and name != "-1"
        ]
    return [str(index) for index in range(_count_gpus())]


def raise_open_files() -> None:
    """Raise the soft limit of open files to the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _count_gpus(proc: Path = Path("/proc/driver/nvidia/gpus"), dev: Path = Path("/dev")) -> int:
    """Count what the driver lists, or else its device files: a container may have only these."""
    try:
        return len(list(proc.iterdir()))
    except OSError:
        return len(
            [
                path
                for path in dev.glob("nvidia[0-9]*")
                if path.name.removeprefix("nvidia").isdigit()
            ]
        )


def _cgroup_quota() -> float | None:
    quotas = [quota for folder in _cgroup_folders() if (quota := _read_quota(folder)) is not None]
    return min(quotas, default=None)


def _cgroup_folders() -> list[Path]:
    root = Path("/sys/fs/cgroup")
    folders = [root, root / "cpu"]
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return folders
    for line in lines:
        _, controllers, path = line.split(":", 2)
        base = root if not controllers else root / "cpu"
        if not controllers or "cpu" in controllers.split(","):
            own = base / path.lstrip("/")
            folders += [own, *(parent for parent in own.parents if parent.is_relative_to(base))]
    return folders


def _read_quota(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass
    try:
        quota_us = int((folder / "cpu.cfs_quota_us").read_text())
        return quota_us / int((folder / "cpu.cfs_period_us").read_text()) if quota_us > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
