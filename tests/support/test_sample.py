"""What the samples have: each fact, each case with one of the others; and that nothing is left out of all cases."""

import pytest

from tests.support.sample import covering, in_turn, sample_of


def test_every_fact_is_in_the_sample_as_often_as_is_wanted() -> None:
    words = ["ab", "a", "b", "abc", "c", "a"]
    assert sample_of(covering(words, set)) == ["ab", "abc"]
    assert sample_of(covering(words, set, times=2)) == ["ab", "a", "b", "abc", "c"]
    assert [each.values[0] for each in covering(words, set)] == words


@pytest.mark.parametrize(("cases", "others"), [("abcde", "xyz"), ("ab", "vwxyz"), ("a", "x"), ("abcd", "wxyz")])
def test_cases_take_turns(cases: str, others: str) -> None:
    pairs = in_turn(cases, others)
    assert [each.values for each in pairs] == [(case, other) for case in cases for other in others]
    chosen = sample_of(pairs)
    assert len(chosen) == max(len(cases), len(others))
    assert ({case for case, _ in chosen}, {other for _, other in chosen}) == (set(cases), set(others))
