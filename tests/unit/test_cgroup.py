"""Limits of control groups, read in trees as kernels and container engines show them."""

from __future__ import annotations

from pathlib import Path

import pytest

from ringpost.engines.cgroup import memory_left

MiB = 1 << 20
NO_LIMIT = 9223372036854771712  # version 1


class Machine:
    """A /proc and a /sys/fs/cgroup."""

    def __init__(self, place: Path) -> None:
        self.proc, self.groups = place / "proc", place / "cgroup"
        (self.proc / "self").mkdir(parents=True)
        self.groups.mkdir()
        self.swap(0)

    def swap(self, free: int) -> None:
        (self.proc / "meminfo").write_text(f"MemTotal: 1 kB\nSwapFree: {free >> 10} kB\n")

    def mount(self, kind: str, options: str, root: str = "/", inside: str = "") -> None:
        point = self.groups / inside
        point.mkdir(exist_ok=True)
        with (self.proc / "self" / "mountinfo").open("a") as file:
            file.write(f"30 23 0:26 {root} {point} rw,nosuid - {kind} {kind} {options}\n")

    def member(self, *lines: str) -> None:
        (self.proc / "self" / "cgroup").write_text("".join(f"{line}\n" for line in lines))

    def v2(self, group: str, limit: int | str, used: int, files: int = 0, swap: str = "max") -> None:
        place = self.groups / group
        place.mkdir(parents=True, exist_ok=True)
        (place / "memory.max").write_text(f"{limit}\n")
        (place / "memory.current").write_text(f"{used}\n")
        (place / "memory.stat").write_text(f"anon 5\ninactive_file {files}\nactive_file {files}\n")
        (place / "memory.swap.max").write_text(f"{swap}\n")
        (place / "memory.swap.current").write_text("0\n")

    def v1(self, group: str, limit: int, used: int, files: int = 0) -> None:
        place = self.groups / "memory" / group
        place.mkdir(parents=True, exist_ok=True)
        (place / "memory.limit_in_bytes").write_text(f"{limit}\n")
        (place / "memory.usage_in_bytes").write_text(f"{used}\n")
        (place / "memory.stat").write_text(
            f"inactive_file 1\ntotal_inactive_file {files}\ntotal_active_file {files}\n"
        )

    def left(self) -> int | None:
        room = memory_left(self.proc)
        return None if room is None else room.bytes // MiB


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def unified(machine: Machine) -> Machine:
    machine.mount("cgroup2", "rw,nsdelegate")
    machine.member("0::/system.slice/shop.service")
    return machine


def test_no_control_groups(machine: Machine) -> None:
    assert machine.left() is None
    machine.member("0::/")
    assert machine.left() is None


def test_no_limit(unified: Machine) -> None:
    unified.v2("system.slice/shop.service", "max", 10 * MiB)
    assert unified.left() is None


def test_what_is_left(unified: Machine) -> None:
    unified.v2("system.slice/shop.service", 32 * MiB, 10 * MiB)
    assert unified.left() == 22


def test_pages_of_files_can_go(unified: Machine) -> None:
    unified.v2("system.slice/shop.service", 32 * MiB, 30 * MiB, files=5 * MiB)
    assert unified.left() == 12


def test_the_least_of_all_above(unified: Machine) -> None:
    unified.v2("system.slice/shop.service", 32 * MiB, 2 * MiB)
    unified.v2("system.slice", 64 * MiB, 60 * MiB)
    unified.v2("", "max", 60 * MiB)
    room = memory_left(unified.proc)
    assert room is not None
    assert (room.bytes, room.group.name) == (4 * MiB, "system.slice")


def test_beyond_the_limit_already(unified: Machine) -> None:
    unified.v2("system.slice/shop.service", 32 * MiB, 33 * MiB)
    assert unified.left() == -1


@pytest.mark.parametrize(("most", "left"), [("max", 122), (str(30 * MiB), 52), ("0", 22)])
def test_swap(unified: Machine, most: str, left: int) -> None:
    unified.swap(100 * MiB)
    unified.v2("system.slice/shop.service", 32 * MiB, 10 * MiB, swap=most)
    assert unified.left() == left


def test_a_container_that_sees_its_own_group_only(machine: Machine) -> None:
    """With a namespace of groups."""
    machine.mount("cgroup2", "rw")
    machine.member("0::/")
    machine.v2("", 32 * MiB, 30 * MiB)
    assert machine.left() == 2


def test_version_1(machine: Machine) -> None:
    machine.mount("tmpfs", "rw,mode=755")
    machine.mount("cgroup", "rw,cpu,cpuacct", inside="cpu")
    machine.mount("cgroup", "rw,memory", inside="memory")
    machine.member("4:memory:/docker/abc", "3:cpu,cpuacct:/docker/abc", "0::/")
    machine.v1("docker/abc", 64 * MiB, 50 * MiB, files=1 * MiB)
    machine.v1("docker", NO_LIMIT, 50 * MiB)
    assert machine.left() == 16


def test_version_1_in_a_container_without_a_namespace_of_groups(machine: Machine) -> None:
    """Its group's path is the machine's, and what is mounted begins there."""
    machine.mount("cgroup", "rw,memory", root="/docker/abc", inside="memory")
    machine.member("4:memory:/docker/abc")
    machine.v1("", 64 * MiB, 60 * MiB)
    assert machine.left() == 4


def test_a_path_that_is_not_to_be_seen(machine: Machine) -> None:
    machine.mount("cgroup2", "rw")
    machine.member("0::/../../elsewhere")
    machine.v2("", 64 * MiB, 60 * MiB)
    assert machine.left() == 4


@pytest.mark.parametrize("noise", ["", "many\n", "-5\n"])
def test_noise(unified: Machine, noise: str) -> None:
    unified.v2("system.slice/shop.service", 32 * MiB, 10 * MiB)
    (unified.groups / "system.slice/shop.service/memory.max").write_text(noise)
    assert unified.left() is None
