"""Each sync point of the native core is listed, is used, has both its sides, and has a litmus test."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[2] / "native" / "src"
ORDER = SOURCES / "order.h"
LITMUS = sorted((SOURCES.parent / "tests").glob("test_*.c"))

BOTH, RELEASE, ACQUIRE = {"release", "acquire"}, {"release"}, {"acquire"}
SIDES = {
    "rp_load_acquire": ACQUIRE,
    "rp_store_release": RELEASE,
    "rp_cas_acquire": ACQUIRE,
    "rp_cas_release": RELEASE,
    "rp_cas_acq_rel": BOTH,
    "rp_swap_acquire": ACQUIRE,
    "rp_swap_release": RELEASE,
    "rp_swap_acq_rel": BOTH,
    "rp_add_acquire": ACQUIRE,
    "rp_add_release": RELEASE,
    "rp_add_acq_rel": BOTH,
    "rp_or_acquire": ACQUIRE,
    "rp_or_release": RELEASE,
    "rp_or_acq_rel": BOTH,
    "rp_and_acquire": ACQUIRE,
    "rp_and_release": RELEASE,
    "rp_and_acq_rel": BOTH,
    "rp_fence_acquire": ACQUIRE,
    "rp_fence_release": RELEASE,
    "rp_fence_full": BOTH,
    "rp_fence_full_after_rmw": BOTH,
}
FULL_FENCES = ("rp_fence_full", "rp_fence_full_after_rmw")
USE = re.compile(
    r"\b(rp_(?:load|store|cas|swap|add|or|and|fence)_(?:acquire|release|acq_rel|full)\w*)\s*\(\s*(\w+)"
)

Use = tuple[str, str]  # operation, sync point


def without_comments(text: str) -> str:
    return re.sub(r"/\*.*?\*/|//[^\n]*", " ", text, flags=re.DOTALL)


def uses_in(text: str) -> list[Use]:
    return USE.findall(without_comments(text))


def listed_in(text: str) -> list[str]:
    header = text[: text.index("*/")]
    table = header.partition("The names:")[2].partition("tests/unit")[0]
    return re.findall(r"^ \*   (\w+) {2,}\S.*->", table, re.MULTILINE)


def problems(listed: list[str], uses: list[Use]) -> list[str]:
    found = [f"{name} is listed {listed.count(name)} times" for name in set(listed) if listed.count(name) > 1]
    found += [f"{name} is used, not listed" for name in {point for _, point in uses} - set(listed)]
    for name in listed:
        operations = [operation for operation, point in uses if point == name]
        sides = set().union(*(SIDES[operation] for operation in operations))
        found += [f"{name} has no {side} side" for side in sorted(BOTH - sides)]
    return sorted(found)


def source_files() -> list[Path]:
    return sorted({*SOURCES.glob("*.[ch]")} - {ORDER})


def all_uses() -> list[Use]:
    return [use for path in source_files() for use in uses_in(path.read_text())]


def test_each_is_listed_and_has_both_sides() -> None:
    assert problems(listed_in(ORDER.read_text()), all_uses()) == []


def test_two_full_fences_stand_against_each_other_in_arm() -> None:
    """A store before a load on each side: nothing weaker than two fences orders that."""
    fences = [operation for operation, point in all_uses() if point == "arm" and operation in FULL_FENCES]
    assert len(fences) >= 2


def test_every_operation_with_a_name_is_known_here() -> None:
    """So that a new one in order.h is not overlooked."""
    defined = set(re.findall(r"#define (rp_\w+)\(point\b", ORDER.read_text()))
    assert defined <= set(SIDES)
    assert {operation for operation, _ in all_uses()} <= defined


def test_every_order_above_relaxed_is_behind_a_name() -> None:
    for path in source_files():
        text = without_comments(path.read_text())
        assert not re.search(
            r"\bmemory_order_\w+|\batomic_(?:load|store|exchange|fetch|compare|thread)\w*", text
        ), path
        assert set(re.findall(r"\b__ATOMIC_\w+", text)) <= {"__ATOMIC_RELAXED"}, path
        assert "__sync_" not in text, path


def forbidden_in(text: str) -> dict[str, list[str]]:
    """Sync points, and the tests in which what they forbid would be seen: those that are run."""
    found: dict[str, list[str]] = {}
    run = set(re.findall(r"\bTEST\((\w+)\)", text))
    forbids = r"/\* FORBIDS ([\w, ]+): [^*]*(?:\*(?!/)[^*]*)*\*/\s*static void (\w+)\(void\)"
    for points, test in re.findall(forbids, text):
        for point in re.split(r",\s*", points):
            found.setdefault(point, []).extend([test] if test in run else [])
    return found


def test_each_has_a_litmus_test_with_a_forbidden_outcome() -> None:
    found: dict[str, list[str]] = {}
    for path in LITMUS:
        for point, tests in forbidden_in(path.read_text()).items():
            found.setdefault(point, []).extend(tests)
    assert set(found) == set(listed_in(ORDER.read_text()))
    assert [point for point, tests in found.items() if not tests] == []


# ---- that this file would notice ----------------------------------------------------------------

LISTING = """/* Words. The names:
 *
 *   lock      unlock's swap  -> the next locker's CAS
 *   commit    tail's store   -> whoever reads
 *
 * tests/unit/test_sync_points.py checks it -> here.
 */
"""
COMPLETE = """
rp_cas_acquire(lock, &word, 0, 1); rp_swap_release(
    lock, word, 0);
rp_store_release(commit, &tail, 1); if (rp_load_acquire(commit, &tail) == 1) {}
"""


def test_the_list_is_read() -> None:
    assert listed_in(LISTING) == ["lock", "commit"]
    assert len(listed_in(ORDER.read_text())) >= 10


def test_nothing_is_found_where_nothing_is_wrong() -> None:
    assert problems(listed_in(LISTING), uses_in(COMPLETE)) == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        (COMPLETE.replace("rp_load_acquire", "rp_load_relaxed"), "commit has no acquire side"),
        (COMPLETE.replace("rp_swap_release", "rp_swap_relaxed"), "lock has no release side"),
        (COMPLETE + "rp_fence_full(arm);", "arm is used, not listed"),
        (COMPLETE + "/* rp_fence_full(arm); */ rp_fence_release(lap);", "lap is used, not listed"),
    ],
)
def test_what_is_wrong_is_found(source: str, found: str) -> None:
    assert problems(listed_in(LISTING), uses_in(source)) == [found]


def test_a_name_that_nobody_uses_is_found() -> None:
    assert problems(["idle"], []) == ["idle has no acquire side", "idle has no release side"]


def test_a_litmus_test_that_is_not_run_is_found() -> None:
    source = "/* FORBIDS lock, lap: both *\n * inside. */\nstatic void both(void) {}\n"
    source += "/* lap */ static void no(void) {}"
    assert forbidden_in(source + "RUN_TESTS(TEST(both))") == {"lock": ["both"], "lap": ["both"]}
    assert forbidden_in(source + "RUN_TESTS(TEST(no))") == {"lock": [], "lap": []}
