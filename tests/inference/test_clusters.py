"""Near-duplicates."""

from __future__ import annotations

from upstack.inference.clusters import clusters, place_of


def test_texts_that_share_half_of_their_words_are_one_cluster() -> None:
    """Whatever their case and blanks, and in whatever order they come."""
    texts = [
        "How can I verify the identity of my new card",
        "Where is the nearest branch of the bank in Hamburg",
        "how can I  verify the identity of my card",
    ]
    assert clusters(texts) == [0, 1, 0]
    assert clusters(texts[::-1]) == [0, 1, 0]


def test_a_template_with_another_number_in_it_is_no_duplicate() -> None:
    """What most texts share tells nothing of two of them."""
    texts = [f"Is {number} a prime number? Think step by step and answer yes or no." for number in range(100, 200)]
    assert clusters(texts) == list(range(100))


def test_a_repeated_text_is_one_cluster_however_often_it_comes() -> None:
    """A template's share of the texts is counted over different ones."""
    assert clusters(["What is the time?"] * 50 + ["Who are you?"]) == [0] * 50 + [50]


def test_writing_without_blanks_is_compared_by_characters() -> None:
    """Chinese."""
    one = "我想知道如何在网上银行修改我的登录密码和绑定的手机号码"
    other = "我想知道如何在网上银行修改我的登录密码和绑定的邮箱"
    assert clusters([one, other, "请问附近最近的自动取款机在什么地方可以找到呢"]) == [0, 0, 2]


def test_empty_and_odd_texts_have_their_place() -> None:
    """Nothing, one word, half a surrogate."""
    assert clusters(["", "a", "", "\ud800"]) == [0, 1, 0, 3]
    assert clusters([]) == []
    assert 0 <= place_of("\ud800", 0) < 1


def test_a_cluster_keeps_its_place_whatever_comes_later() -> None:
    """It hangs on the text that it began with, and on the seed."""
    assert place_of("a", 1) == place_of("a", 1) != place_of("a", 2)
    places = [place_of(str(number), 0) for number in range(2_000)]
    assert abs(sum(place < 0.3 for place in places) / 2_000 - 0.3) < 0.05
