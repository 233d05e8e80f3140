"""Patterns of subjects, against a definition so simple that it must be right."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringpost._binding import binding
from ringpost.subjects import check_pattern, check_subject, from_mqtt, from_nats

WORDS = st.sampled_from(["a", "b", "ab", "é"])
SUBJECTS = st.lists(WORDS, min_size=1, max_size=5).map(".".join)
PATTERNS = st.lists(st.one_of(WORDS, st.sampled_from(["*", "#"])), min_size=1, max_size=5).map(".".join)


def matches(pattern: list[str], subject: list[str]) -> bool:
    if not pattern:
        return not subject
    first, *rest = pattern
    if first == "#":
        return any(matches(rest, subject[skipped:]) for skipped in range(len(subject) + 1))
    return bool(subject) and first in ("*", subject[0]) and matches(rest, subject[1:])


@given(PATTERNS, SUBJECTS)
def test_a_pattern_means_what_it_is_defined_to(pattern: str, subject: str) -> None:
    assert binding.subject_matches(pattern, subject) == matches(pattern.split("."), subject.split("."))


@given(st.lists(PATTERNS, min_size=1, max_size=4), SUBJECTS)
def test_several_patterns_are_alternatives(patterns: list[str], subject: str) -> None:
    expected = any(matches(each.split("."), subject.split(".")) for each in patterns)
    assert binding.subject_matches(" ".join(patterns), subject) == expected


@pytest.mark.parametrize(
    ("pattern", "subject", "expected"),
    [
        ("#", "", True),
        ("#", "a.b.c", True),
        ("*", "", False),
        ("eu.*", "eu.dax", True),
        ("eu.*", "eu.dax.future", False),
        ("eu.#", "eu", True),
        ("#.dax", "dax", True),
        ("a.#.z", "a.z", True),
        ("a.*.#", "a", False),
    ],
)
def test_as_in_amqp(pattern: str, subject: str, expected: bool) -> None:
    assert binding.subject_matches(pattern, subject) is expected


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_noise_is_no_crash(pattern: bytes, subject: bytes) -> None:
    binding.subject_matches(pattern.decode("latin-1"), subject.decode("latin-1"))


@pytest.mark.parametrize(
    ("nats", "ours"), [("eu.>", "eu.*.#"), ("eu.*", "eu.*"), (">", "*.#"), ("a.b", "a.b")]
)
def test_from_nats(nats: str, ours: str) -> None:
    assert from_nats(nats) == ours


@pytest.mark.parametrize(
    ("mqtt", "ours"),
    [("eu/+/dax", "eu.*.dax"), ("eu/#", "eu.#"), ("#", "#"), ("a/b", "a.b"), ("/a//b", ".a..b")],
)
def test_from_mqtt(mqtt: str, ours: str) -> None:
    assert from_mqtt(mqtt) == ours


@pytest.mark.parametrize("nats", ["a.#", "#", "a.>.b", ">.a"])
def test_a_nats_pattern_that_would_mean_something_else_is_refused(nats: str) -> None:
    with pytest.raises(ValueError, match="no ringpost spelling"):
        from_nats(nats)


@pytest.mark.parametrize("mqtt", ["a.b/c", "a/*", "*", "a/#/b"])
def test_an_mqtt_filter_that_would_mean_something_else_is_refused(mqtt: str) -> None:
    with pytest.raises(ValueError, match="no ringpost spelling"):
        from_mqtt(mqtt)


TOKENS = st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=4)


@given(st.lists(st.sampled_from(["a", "b", "*"]), min_size=1, max_size=3), st.booleans(), TOKENS)
def test_a_nats_pattern_matches_what_nats_would(
    pattern: list[str], is_open: bool, subject: list[str]
) -> None:
    long_enough = len(subject) > len(pattern) if is_open else len(subject) == len(pattern)
    expected = long_enough and all(p in ("*", s) for p, s in zip(pattern, subject, strict=False))
    ours = from_nats(".".join([*pattern, *[">"] * is_open]))
    assert binding.subject_matches(ours, ".".join(subject)) == expected


@given(st.lists(st.sampled_from(["a", "b", "+"]), min_size=1, max_size=3), st.booleans(), TOKENS)
def test_an_mqtt_filter_matches_what_mqtt_would(pattern: list[str], is_open: bool, topic: list[str]) -> None:
    long_enough = len(topic) >= len(pattern) if is_open else len(topic) == len(pattern)
    expected = long_enough and all(p in ("+", s) for p, s in zip(pattern, topic, strict=False))
    ours = from_mqtt("/".join([*pattern, *["#"] * is_open]))
    assert binding.subject_matches(ours, ".".join(topic)) == expected


@pytest.mark.parametrize("wrong", ["with blank", "x" * 256, "é" * 128, 7, None])
def test_what_is_no_subject_or_pattern_is_refused(wrong: object) -> None:
    for check in (check_subject, check_pattern):
        with pytest.raises((ValueError, TypeError)):
            check(wrong)  # type: ignore[arg-type]


def test_no_pattern_is_empty() -> None:
    assert check_pattern("#") == ""  # for the core: everything
    with pytest.raises(ValueError, match='"#" matches everything'):
        check_pattern("")


def test_the_longest_ones_fit() -> None:
    assert check_subject("é" * 127 + "x") == ("é" * 127 + "x").encode()
    assert check_pattern("x" * 255) == "x" * 255


@pytest.mark.parametrize("wrong", ["a b", " ", "a\0b", "\ud800"])
def test_what_the_core_cannot_keep_is_refused(wrong: str) -> None:
    for check in (check_subject, check_pattern):
        with pytest.raises(ValueError, match=r"blanks|Unicode"):
            check(wrong)


@given(st.integers(1, 40))
def test_many_wildcards_cost_no_exponential_time(count: int) -> None:
    pattern, subject = "#.a." * count + "b", ".".join("a" * 120)
    assert not binding.subject_matches(pattern, subject)
