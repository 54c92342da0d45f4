"""Votes to the letter: which answers are usable, which marks are one error, what they come to, how it is told."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tau2_fleet.analysis.reviews import Effect, ErrorKind, ErrorSource, Mark, Review, Severity, Verdict
from tau2_fleet.errors import UserError
from tau2_fleet.evaluation.proportions import Estimate
from tau2_fleet.llm.settings import ModelSettings
from tau2_fleet.record.line import SimulationKey
from tau2_fleet.review import shown
from tau2_fleet.review.answers import Counted, UnusableAnswer, Vote, _groups, _merged, majority, read_vote
from tau2_fleet.review.case import Case
from tau2_fleet.review.joining import _confirmed, _is_same, join_all
from tau2_fleet.review.labels import read_labels
from tau2_fleet.review.sampling import _shares, stratified
from tau2_fleet.review.scores import LeftOut, Score, left_out, scores
from tau2_fleet.review.tracked import figures
from tau2_fleet.review.votes import VOTES_FILE, ReviewAnswer, VoteFile, digest_of
from tau2_fleet.review.words import identifiers, is_telling, plain, without_marks

KEY = SimulationKey("retail", "1", 0)
TEXTS = ["Hello", "My zip is 94103", "", "Which order?", "###STOP###", "One", "Two", "Three", "Hello again"]
CASE = Case(
    {
        "domain": "retail", "task_id": "1", "trial": 0,
        "messages": [
            {"role": "user", "content": text, "tool_calls": [{"name": "look_up"}] if index == 2 else None}
            for index, text in enumerate(TEXTS)
        ],
    }
)  # fmt: skip


def said(**changes: Any) -> dict[str, Any]:
    about = {
        "kind": "early_stop", "severity": "major", "effect": "hindered", "turn": 1, "quote": "zip IS",
        "reason": "r" * 400,
    }  # fmt: skip
    return {**about, **changes}


def answered(*errors: Any, case: str = "c1") -> str:
    return json.dumps({"case": case, "errors": list(errors)})


def test_an_answer_is_read_with_where_it_is_said() -> None:
    [mark] = read_vote(f"```json\n{answered(said())}\n```", "c1", CASE).marks
    assert (mark.kind, mark.severity, mark.effect) == (ErrorKind.early_stop, Severity.major, Effect.hindered)
    assert (mark.turn, mark.quote, len(mark.detail), mark.source, mark.votes) == (
        1, "zip IS", 300, ErrorSource.review, 1,
    )  # fmt: skip
    places = [read_vote(answered(said(turn=turn)), "c1", CASE).marks[0].turn for turn in (0, 2, 3)]
    assert places == [1, 1, 1], "beside it is near enough"
    [call] = read_vote(answered(said(turn=3.0, quote="look up")), "c1", CASE).marks
    assert call.turn == 2
    [silent] = read_vote(answered(said(turn=2, quote=" … ")), "c1", CASE).marks
    assert silent.turn == 2
    agent = said(kind="policy_breach", effect="hindered")
    assert read_vote(answered(agent), "c1", CASE).marks[0].effect is Effect.none
    assert read_vote(answered(), "c1", CASE).verdict is Verdict.nobody
    assert len(read_vote(answered(*[said()] * 50), "c1", CASE).marks) == 50


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("no json", "not the JSON object"),
        ("[]", "no list of errors"),
        ('{"case": "c1", "errors": {}}', "no list of errors"),
        (answered(case="c2"), "about another case"),
        (answered(*[said()] * 51), "more than 50 errors"),
        (answered("x"), "an error that is no object"),
        (answered({"kind": "early_stop"}), "an error without 'severity'"),
        (answered(said(kind="odd")), "'odd' is not a valid ErrorKind"),
        (answered(said(kind="tool_missing")), "an error of another form"),
        (answered(said(quote=3)), "an error of another form"),
        (answered(said(reason=None)), "an error of another form"),
        (answered(said(turn=True)), "turn True is none"),
        (answered(said(turn=1.5)), "turn 1.5 is none"),
        (answered(said(turn=-1)), "turn -1 is none"),
        (answered(said(turn=9)), "turn 9 is none"),
        (answered(said(turn=8)), "quotes what message 8 does not say"),
        (answered(said(quote="")), "quotes what message 1 does not say"),
    ],
)
def test_what_is_no_usable_answer_says_why(text: str, why: str) -> None:
    with pytest.raises(UnusableAnswer) as caught:
        read_vote(text, "c1", CASE)
    assert str(caught.value).startswith(why)


def mark(
    turn: int | None, severity: Severity = Severity.major, effect: Effect = Effect.hindered,
    kind: ErrorKind = ErrorKind.early_stop, votes: int = 1,
) -> Mark:  # fmt: skip
    return Mark(kind, severity, effect, "why", turn, votes=votes)


def test_marks_that_are_near_and_of_one_kind_are_one_error_once_a_vote() -> None:
    votes = [Vote((mark(5), mark(6))), Vote((mark(7), mark(3), mark(8))), Vote((mark(5, kind=ErrorKind.off_scenario),))]
    assert [[one.turn for one in group] for group in _groups(votes)] == [[5, 7], [6, 8], [3], [5]]
    assert [len(group) for group in _groups([Vote((mark(None),)), Vote((mark(2),)), Vote((mark(3),))])] == [2, 1]
    mild = mark(5, Severity.minor, Effect.none)
    assert _merged([mark(5), mild, mild]) == dataclasses.replace(mild, votes=3)
    assert _merged([mark(5), mild, mark(6)]).severity is Severity.major
    two = _merged([mark(5), mark(5, effect=Effect.helped), mark(5, effect=Effect.helped), mild])
    assert (two.severity, two.effect, two.votes) == (Severity.major, Effect.helped, 4)
    one = Vote((mark(8), mark(2)))
    assert [kept.turn for kept in majority([one, one, Vote(())], 3).marks] == [2, 8]
    assert majority([one, Vote(())], 2).marks == ()
    assert majority([one, one, Vote(()), Vote(())], 4).verdict is Verdict.undecided


def test_a_rule_and_a_vote_near_each_other_confirm_each_other() -> None:
    assert [_is_same(mark(5), mark(turn)) for turn in (3, 7, 8, None)] == [True, True, False, True]
    assert _is_same(mark(None), mark(9))
    assert not _is_same(mark(5), mark(5, kind=ErrorKind.off_scenario))
    assert _confirmed(mark(5, votes=0), [mark(4, votes=2), mark(6, votes=3), mark(9, votes=9)]).votes == 3
    assert _confirmed(mark(5, votes=0), []).votes == 0


@pytest.mark.parametrize(
    ("by_rules", "votes", "verdict", "severities"),
    [
        ((), Counted(Verdict.undecided, (mark(5),)), Verdict.undecided, ["minor"]),
        ((), Counted(Verdict.customer, (mark(5),)), Verdict.customer, ["major"]),
        ((mark(5),), Counted(Verdict.nobody, ()), Verdict.customer, ["major"]),
        ((mark(5),), Counted(Verdict.customer, (mark(6),)), Verdict.customer, ["major"]),
        ((mark(1, kind=ErrorKind.policy_breach),), Counted(Verdict.nobody, ()), Verdict.agent, None),
    ],
)
def test_of_rules_and_votes_one_review_is_made(
    by_rules: tuple[Mark, ...], votes: Counted, verdict: Verdict, severities: list[str] | None
) -> None:
    agent = any(one.kind is ErrorKind.policy_breach for one in by_rules)
    own = Verdict.agent if agent else Verdict.customer if by_rules else Verdict.nobody
    found: Any = SimpleNamespace(by_rules={KEY: Review(KEY, 0.0, own, by_rules)}, infrastructure=set())
    cases: Any = None
    [one] = join_all(cases, found, {KEY: votes}, {})
    assert (one.verdict, one.reviewed) == (verdict, votes.verdict is not Verdict.undecided)
    assert severities is None or [str(mark.severity) for mark in one.marks] == severities
    assert one.weight == 1.0
    assert [join_all(cases, found, {KEY: votes}, {KEY: 2.5})[0].weight] == [2.5]
    assert join_all(cases, found, {}, {KEY: 2.5})[0].weight == 0.0
    found.infrastructure.add(KEY)
    assert join_all(cases, found, {}, {KEY: 2.5})[0].weight == 1.0


def test_a_sample_is_shared_out_by_the_largest_remainders() -> None:
    sizes = {("a", True): 6, ("a", False): 3, ("b", True): 1}
    assert _shares(sizes, 5) == {("a", True): 3, ("a", False): 1, ("b", True): 1}
    assert _shares(sizes, 10) == sizes
    assert _shares(sizes, 1) == dict.fromkeys(sizes, 1)
    keys = [(SimulationKey("a", str(number), 0), number < 6) for number in range(9)]
    drawn = stratified(keys, 3)
    assert sorted(drawn.values()) == [3.0, 3.0, 3.0]
    assert stratified(keys, 3) == drawn != stratified(keys, 3, seed=1)
    assert stratified(keys, 99) == {key: 1.0 for key, _ in keys}


def test_labels_are_read_with_care(tmp_path: Path) -> None:
    path = tmp_path / "labels"
    path.write_text(
        '{"domain": "a", "task_id": 5, "customer": true}\n\n{"domain": "a", "task_id": "5", "customer": false}\n'
        '{"domain": "a", "task_id": "5", "trial": 2, "customer": true}\n'
    )
    assert read_labels(path) == {SimulationKey("a", "5", 0): False, SimulationKey("a", "5", 2): True}
    for text, told in (
        ("\n", "it holds no label"), ('{"customer": 1}', "line 1 is not"), ("\n[]", "line 2 is not"),
        ('{"domain": "a", "task_id": "5", "trial": "2", "customer": true}', "line 1 is not"),
    ):  # fmt: skip
        path.write_text(text)
        with pytest.raises(UserError, match=told):
            read_labels(path)
    path.write_bytes(b"\xff")
    with pytest.raises(UserError, match="not UTF-8"):
        read_labels(path)
    with pytest.raises(UserError, match="No such file"):
        read_labels(tmp_path / "none")


def test_an_answer_that_was_paid_for_is_kept_whatever_comes_after(tmp_path: Path) -> None:
    with VoteFile(tmp_path) as file:
        file.add("d1", KEY, 0, ReviewAnswer("one", 0.5, "m"))
        file.add("d2", KEY, 1, ReviewAnswer("two", 0.25, ""))
        assert file.spent_usd == 0.75
        with pytest.raises(UserError, match="another review of it is going on"):
            VoteFile(tmp_path)
    with (tmp_path / VOTES_FILE).open("ab") as damaged:
        damaged.write(
            b'{"digest": "d3", "answer": "x", "cost_usd": -1}\n{"digest": "d4", "answer": 4, "cost_usd": 1}\n'
        )
        damaged.write(b'{"digest": "d5", "answer": "zero", "cost_usd": 0}\n[]\n{"digest": "torn')
    before = len(os.listdir("/proc/self/fd"))
    with VoteFile(tmp_path) as again:
        assert again.get("d1") == ReviewAnswer("one", 0.5, "m")
        assert again.get("d2") == ReviewAnswer("two", 0.25, "")
        assert [again.get(name) is None for name in ("d3", "d4", "d5")] == [True, True, False]
        assert again.spent_usd == 0.75
    assert len(os.listdir("/proc/self/fd")) == before
    assert (tmp_path / VOTES_FILE).read_bytes().endswith(b"\n")


def test_an_answer_is_known_by_all_that_was_asked() -> None:
    settings = ModelSettings(model="m")
    asked = [
        digest_of(settings, "s", "q", 0, 0), digest_of(settings, "s2", "q", 0, 0), digest_of(settings, "s", "q", 1, 0),
        digest_of(settings, "s", "q", 0, 1), digest_of(dataclasses.replace(settings, temperature=0.3), "s", "q", 0, 0),
    ]  # fmt: skip
    assert len(set(asked)) == len(asked)
    assert digest_of(settings, "s", "q", 0, 0) == asked[0]


def a_review(task: str, reward: float, verdict: Verdict, *marks: Mark, weight: float = 1.0) -> Review:
    return Review(SimulationKey("a", task, 0), reward, verdict, marks, weight=weight)


def test_scores_are_by_domain_and_say_what_they_are_without() -> None:
    reviews = [
        a_review("1", 1.0, Verdict.nobody),
        a_review("2", 0.0, Verdict.customer, mark(1), mark(2, effect=Effect.helped)),
        a_review("3", 0.0, Verdict.undecided),
        a_review("4", 0.0, Verdict.customer, mark(1, effect=Effect.helped)),
        a_review("5", 1.0, Verdict.customer, mark(1, effect=Effect.helped)),
    ]
    assert scores([]) == {}
    found = scores(reviews)
    assert list(found) == ["a", "overall"]
    one = found["a"]
    assert (one.simulations, one.considered, one.undecided) == (5, 5, 1)
    assert one.verdicts == {"customer": 3, "nobody": 1, "undecided": 1}
    assert one.left_out == left_out(reviews) == LeftOut(1, 1, 1)
    assert one.left_out.total == 3
    assert one.as_dict()["left_out"] == {"hindered": 1, "helped": 1, "without_effect": 1}
    assert scores(reviews, only_failures=True)["a"].corrected is None
    weighted = scores([dataclasses.replace(one, weight=2.0 * (number > 0)) for number, one in enumerate(reviews)])["a"]
    assert (weighted.considered, weighted.corrected) == (4, Estimate(0.0))


def test_a_review_is_shown_in_tables() -> None:
    minor = mark(3, Severity.minor, kind=ErrorKind.off_scenario)
    reviews = [a_review("1", 1.0, Verdict.nobody, minor), a_review("2", 0.0, Verdict.customer, mark(1), mark(9), minor)]
    head, *rows = shown.kinds_table(reviews)
    assert head[-1] == "an example"
    assert sorted(rows) == sorted(
        [
            ("customer", ErrorKind.early_stop.words, "1", "0", "1", "a/2/0"),
            ("customer", ErrorKind.off_scenario.words, "1", "1", "0", "a/1/0"),
        ]
    )
    score = Score(3, Estimate(0.5), None, Estimate(0.75), LeftOut(1, 2, 4), 3, 0, {})
    [_, only] = shown.scores_table({"a": score, "overall": score})
    assert only == ("a", "3", str(Estimate(0.5)), "-", "7", "1", "2", "4")
    assert [row[0] for row in shown.scores_table({"a": score, "b": score, "overall": score})] == [
        "",
        "a",
        "b",
        "overall",
    ]
    assert list(shown.aligned([("a", "1"), ("bcd", "22")], [1])) == ["a     1", "bcd  22"]
    assert shown.told(mark(3)) == f"customer, {ErrorKind.early_stop.words} at message 3: why"
    assert shown.told(mark(None)) == f"customer, {ErrorKind.early_stop.words}: why"


def test_only_figures_of_a_review_reach_wandb() -> None:
    document = {
        "v": 1,
        "settings": {"votes": 3},
        "judge": {"n": 1},
        "a": {"b": 2, "c": True, "d": "x", "e": [1]},
        "f": 0.5,
    }
    assert figures(document) == {"review/a/b": 2, "review/f": 0.5}


def test_what_looks_like_a_value_and_what_must_be_told_word_by_word() -> None:
    assert plain("#W-12 3") == "w123"
    assert without_marks(" done ###STOP### ") == "done"
    assert list(identifiers("#W123. on 2024-05-06, 94103 and a@b.co")) == ["#W123", "94103", "a@b.co"]
    assert [is_telling(*one) for one in (("zip", 94103), ("x", "abcd"), ("first_name", "Anna"), ("x", "a@bcd"))] == [
        True, False, True, True,
    ]  # fmt: skip
    assert [is_telling("name", "Ann"), is_telling("id", "123")] == [False, False]
