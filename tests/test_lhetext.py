"""Les Houches text of generators and scripts: read to the last weight, or refused with event and line."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import uproot
from conftest import milanalysis
from hypothesis import given
from hypothesis import strategies as st

from milanalysis.errors import InputFileError
from milanalysis.events.lhe import stream as lhetext
from milanalysis.events.lhe.conversion import conversion_targets, convert_lhe
from milanalysis.events.lhe.words import NotANumberError, numbers, rounding

NAMES = (
    '<initrwgt>\n<weightgroup name="g" combine="none">\n'
    '<weight id="a">one</weight>\n<weight id="b">two</weight>\n'
    "</weightgroup>\n</initrwgt>\n"
)
RWGT = "<rwgt>\n<wgt id='a'> 1e-3 </wgt>\n<wgt id='b'> 2.5e-3 </wgt>\n</rwgt>\n"
COMPACT = "<weights> 1e-3 2.5e-3 </weights>\n"
INIT = "2212 2212 6500 6500 0 0 247000 247000 -4 1\n2.0e-3 1.0e-6 2.0e-3 1\n"
FILE_END = "</LesHouchesEvents>\n"


def event(rest: str = "", *, tag: str = "<event>", weight: str = "2.0e-3", pz: str = "50") -> str:
    return (
        f"{tag}\n 2 1 {weight} 91.0 0.0075 0.118\n 21 -1 0 0 501 502 0 0 {pz} 50 0 0. 1.\n"
        f" 25 1 1 2 0 0 0 0 100 100 100 0. 0.\n{rest}</event>\n"
    )


def text_of(events: str, *, header: str = "", init: str = INIT, end: str = FILE_END) -> str:
    return (
        f'<LesHouchesEvents version="3.0">\n<header>\n{header}</header>\n<init>\n{init}</init>\n{events}{end}'
    )


def converted(text: str | bytes, directory: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the JSON file and the branches ``Weight``, ``Rwgt``, ``Pz`` of a text."""
    path = directory / "made.lhe"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    summary = convert_lhe(path, directory / "made.lhef.root")
    with uproot.open({directory / "made.lhef.root": "LHEF"}) as tree:
        branches = {"Weight": "Event/Event.Weight", "Rwgt": "Rwgt/Rwgt.Weight", "Pz": "Particle/Particle.Pz"}
        return summary, {name: tree[branch].array().tolist() for name, branch in branches.items()}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"1.5", 1.5),
        (b"+.5", 0.5),
        (b"-5.", -5.0),
        (b"1D-3", 1e-3),
        (b"2.05d-03", 2.05e-3),
        (b"1.0Q+2", 100.0),
        (b"5.D0", 5.0),
        (b"1.23457-102", 1.23457e-102),
        (b"-.5+100", -5e99),
        (b"0." + b"3" * 60, 1 / 3),
        (b"Infinity", np.inf),
    ],
)
def test_numbers_of_every_spelling_are_read(text: bytes, value: float) -> None:
    assert numbers(b"7 " + text + b"\n8").tolist() == [7.0, value, 8.0]


@pytest.mark.parametrize(
    "text",
    [
        b"******",
        b"1_0",
        b"1,5",
        b"0.123E+02-0.456E+01",
        b"1.5-3",
        b"0x10",
        b"1.0E",
        b"\xff",
        b"1" * 50 + b"x",
    ],
)
def test_a_word_that_is_no_number_is_named(text: bytes) -> None:
    with pytest.raises(NotANumberError, match="is not a number") as caught:
        numbers(b"7 8 " + text + b" 9")
    assert (caught.value.position, caught.value.word) == (2, text)


@given(st.lists(st.floats(allow_nan=False), max_size=20), st.sampled_from("eEdD"))
def test_numbers_are_rounded_as_python_does(values: list[float], letter: str) -> None:
    text = " ".join(repr(value).replace("e", letter) for value in values)
    assert numbers(text.encode()).tolist() == values


def test_rounding_is_half_a_unit_of_the_last_digit() -> None:
    assert rounding(b"1.020143e-03") == 5e-10
    assert rounding(b"+1.0D0") == 0.05
    assert rounding(b"7") == 0.5


BROKEN = event().replace("</event>\n", "")
UNTAGGED = BROKEN.replace("<event>\n", "")


@pytest.mark.parametrize(
    ("events", "message"),
    [
        (
            event() + BROKEN + event(),
            r"event 2 \(line 13\) has no </event>: another <event> begins in line 17",
        ),
        (event() + BROKEN * 2 + event(), r"event 2 \(line 13\) has no </event>"),
        (BROKEN[:40] + "\n" + event(RWGT) * 2, r"event 1 \(line 8\) has no </event>"),
        (event() + BROKEN, "in event 2: the text ends, after 1 complete"),
        (event() + event().replace("<event>\n", ""), "in event 2: there is </event> without <event>"),
        (
            event() + event().replace("event>", "EVENT>") + event(),
            "in line 13: '<EVENT>' is outside of an event",
        ),
        (event() + RWGT + event(), "in line 13: '<rwgt>' is outside of an event"),
        ("<eventgroup>\n" + event() + "</eventgroup>\n", "groups of events that belong together"),
        (event() + "<!--\n" + event(), "in line 13: a comment or CDATA section begins here and does not end"),
        (event() + FILE_END + event(), "in line 13: '</LesHouchesEvents>' where the next <event>"),
        (event() + FILE_END + text_of(event()), "in line 13: '</LesHouchesEvents>' where the next <event>"),
        (event() + text_of(event()), "in line 13: '<LesHouchesEvents .*where the next <event>"),
        (
            event() + event(pz="*****"),
            r"event 2: .* number 9, '\*{5}' is not a number .*too narrow.*\(line 15\)",
        ),
        (event() + event(pz="1_0"), r"event 2: .* number 9, '1_0' is not a number"),
        (event() + event(pz="NaN"), r"event 2: .* not finite.*'21 -1 .*\(line 15\)"),
        (event() + event(weight="inf"), r"event 2: .* not finite.*\(line 14\)"),
        (
            event() + event().replace("25 1 1", "25.5 1 1"),
            r"event 2: .* a fraction .*'25\.5 1 1.*\(line 16\)",
        ),
        (event().replace(" 25 1", " 99999999999 1"), "event 1: .* a fraction where a whole number belongs"),
        (event().replace(" 2 1 ", " 3 1 "), "event 1: its first line announces 3 particles and there are 2"),
        (
            event(RWGT).replace(" 2 1 ", " 3 1 "),
            "event 1: its first line announces 3 particles and there are 2",
        ),
        (event().replace(" 2 1 2.0", " 1 1 2.0"), "event 1: there are more particles than the first line"),
        (event().replace(" 2 1 2.0", " -2 1 2.0"), "event 1: .* -2 is no number of particles"),
        (
            event().replace("0. 1.\n", "0.\n").replace("0. 0.\n", "0. 0. 9\n"),
            r"event 1: .* has 12; expected 13: PDG id.*\(line 10\)",
        ),
        (event() + "\0\0\0\0" + event(), "in line 13: there are bytes of value 0"),
        (
            event() + UNTAGGED + event(),
            r"in line 13: '2 1 2\.0e-3 .* is a line of an event, and there is no <event>",
        ),
        (UNTAGGED + event(), r"in line 8: '2 1 2\.0e-3 .* is a line of an event"),
        (event() + UNTAGGED, r"in line 13: '2 1 2\.0e-3 .* is a line of an event"),
        (
            event() + "&lt;event&gt;\n" + UNTAGGED + "&lt;/event&gt;\n" + event(),
            "in line 14: .*a line of an event",
        ),
        (event() + f"<![CDATA[{event()}]]>\n" + event(), "in line 14: .*a line of an event"),
        (event() + event().replace("event>", "evnt>") + event(), "in line 14: .*a line of an event"),
        (event() + UNTAGGED.split("\n", 1)[1] + event(), "in line 13: '21 -1 0 0 .*a line of an event"),
        (
            event() + event().replace(" 2 1 2.0", " 1e300 1 2.0"),
            r"event 2: .* 1e\+300 is no number of particles",
        ),
        (
            event() + event().replace(" 2 1 2.0", f" {10**30} 1 2.0"),
            r"event 2: .* 1e\+30 is no number of particles",
        ),
    ],
)
def test_no_event_is_lost_without_a_word(tmp_path: Path, events: str, message: str) -> None:
    with pytest.raises(InputFileError, match=message):
        converted(text_of(events), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["made.lhe"]


UNUSUAL = {
    "comments": text_of(event() + f"<!-- {event()} -->\n" + event(), header="<!-- <init> <event> -->\n"),
    "CDATA": text_of(event() + "<![CDATA[ <event> ]]>\n" + event(), header="<![CDATA[ <event> </init> ]]>\n"),
    "tags in a header": text_of(event() * 2, header="a card with <event> and <init> and </init>\n"),
    "comment in an event": text_of(event("<!-- <event>\n</event> -->\n") * 2),
    "comment between particles": text_of(event().replace(" 25 1", "<!-- a\nb -->\n# c\n\n 25 1") * 2),
    "comment after numbers": text_of(event().replace("0. 1.\n", "0. 1. # gluon\n") * 2),
    "attributes": text_of(event(tag="<event npLO=' 3 ' note='a>b'>") * 2),
    "blank in the closing tag": text_of(event().replace("</event>", "</event >") * 2),
    "one line less": text_of(event().replace("<event>\n", "<event>").replace("\n</event>", "</event>") * 2),
    "CRLF": text_of(event() * 2).replace("\n", "\r\n"),
    "CR": text_of(event() * 2).replace("\n", "\r"),
    "UTF-8 with a mark": "\ufeff" + text_of(event() * 2),
    "Latin-1": text_of(event("# \xe9t\xe9\n") * 2, header="<!-- \xe9 -->\n\xe9\n").encode("latin-1"),
    "whole numbers with a point": text_of(
        event().replace(" 2 1 2.0", " 2. 1 2.0").replace(" 21 ", " 21. ") * 2
    ),
    "no header": text_of(event() * 2).replace("<header>\n</header>\n", ""),
    "header without end": text_of(event() * 2).replace("</header>\n", ""),
    "wrapped init": text_of(event() * 2, init="2212 2212 6500 6500\n0 0 1 1\n-4 1\n2e-3 1e-6\n2e-3 1\n"),
    "words in init": text_of(
        event() * 2, init=f"<generator name='x'>1 2 3</generator>\n# c\n{INIT}some words\n"
    ),
    "D in init": text_of(event() * 2, init=INIT.replace("e-", "D-")),
}


@pytest.mark.parametrize("block", [1, 300, 4 << 20])
@pytest.mark.parametrize("name", list(UNUSUAL))
def test_unusual_texts_have_the_same_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, block: int
) -> None:
    monkeypatch.setattr(lhetext, "_TEXT_BLOCK", block)
    summary, tree = converted(UNUSUAL[name], tmp_path)
    assert (summary["n_events"], summary["cross_section_pb"], summary["normalisation"]) == (2, 2e-3, "mean")
    assert tree == {"Weight": [[2e-3]] * 2, "Rwgt": [[]] * 2, "Pz": [[50.0, 100.0]] * 2}


@pytest.mark.parametrize(
    ("init", "why"),
    [
        (INIT.replace("2.0e-3 1.0e-6", "-1.0 -1.0"), "XSECUP = -1"),
        (INIT.replace("2.0e-3 1.0e-6", "0.0 0.0"), "XSECUP = 0"),
        (INIT.replace("2.0e-3 1.0e-6", "NaN NaN"), "XSECUP = nan"),
        (INIT.replace("2.0e-3 1.0e-6", "-3.5 0.1"), "XSECUP = -3.5"),
        (
            INIT.replace("2.0e-3 1.0e-6 2.0e-3 1", "1.0 10001"),
            "1 processes .* 0 of which have the four numbers",
        ),
        (INIT.replace("-4 1", "7 8").split("\n")[0] + "\n", "announces 8 processes .* has 0 lines"),
        (INIT.replace("-4 1", "-4 2"), "announces 2 processes .* has 1 lines"),
        (INIT + "3e-3 1e-6 3e-3 2\n", "announces 1 processes .* has 2 lines"),
        (INIT.replace("-4 1", "-4 2") + "-1 -1 1 2\n", "XSECUP = 0.002, -1"),
    ],
)
def test_an_unknown_cross_section_is_null_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, init: str, why: str
) -> None:
    summary, tree = converted(text_of(event() * 3, init=init), tmp_path)
    assert (summary["cross_section_pb"], summary["cross_section_error_pb"]) == (None, None)
    assert summary["normalisation"] is None
    assert len(tree["Weight"]) == 3
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert re.search(why, record.getMessage())


@pytest.mark.parametrize("strategy", ["inf", "nan", "1e300", "-4.5"])
def test_a_strategy_that_is_no_whole_number_is_refused(tmp_path: Path, strategy: str) -> None:
    with pytest.raises(
        InputFileError, match=rf"IDWTUP = {strategy.replace('1e300', '1e.300')} .* whole numbers"
    ):
        converted(text_of(event(), init=INIT.replace("-4 1\n", f"{strategy} 1\n")), tmp_path)


@pytest.mark.parametrize("tag", ["<event>", "<event trials='2'>"])
def test_weights_whose_sum_is_too_large_for_a_number_have_no_cross_section(tmp_path: Path, tag: str) -> None:
    events = event(tag=tag, weight="1e308") * 3
    summary, tree = converted(text_of(events, init=INIT.replace("2.0e-3 1.0e-6", "1e308 1e200")), tmp_path)
    assert len(tree["Weight"]) == 3
    assert summary["normalisation"] == ("mean" if "trials" in tag else None)
    if "trials" in tag:
        assert (summary["cross_section_pb"], summary["cross_section_error_pb"]) == (None, None)


def test_numbers_of_init_that_are_none_are_refused_by_line(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match=r"<init> block that cannot be read: '\*{4}' is .*\(line 6\)"):
        converted(text_of(event(), init=INIT.replace("1.0e-6", "****")), tmp_path)


def with_weights(*weights: str) -> str:
    return "".join(event(weight=weight) for weight in weights)


@pytest.mark.parametrize(
    ("section", "weights", "expected"),
    [
        # MadGraph rounds: 2.0e-3 stands for anything from 1.95e-3 to 2.05e-3
        pytest.param("2.0e-3 0.", ["2.043e-3"] * 3, "mean", id="rounded"),
        pytest.param("2.0000e-3 0.", ["2.043e-3"] * 3, None, id="not rounded as much"),
        pytest.param("2.000e-3 0.", ["5.0e-4"] * 4, "sum", id="sum"),
        pytest.param("2.0000e-3 0.", ["7e-4"] * 3, "sum", id="rounded weights"),
        # mean 2.05e-3, standard error 0.2e-3
        pytest.param(
            "2.00000e-3 0.", ["1.0e-3", "3.1e-3"] * 20, "mean", id="statistical error of the weights"
        ),
        pytest.param("2.00000e-3 2e-5", ["2.05000e-3"] * 3, "mean", id="error of the cross-section"),
        pytest.param("1.00000e-3 1e-6", ["2e-3"] * 75 + ["-2e-3"] * 25, "mean", id="signs"),
        pytest.param("2.00000e-3 1.0", ["2.50000e-3"] * 3, None, id="an error of nothing known"),
        pytest.param("2.0e-3 0.", ["2.0e-3"], None, id="one event, whose mean is its sum"),
        pytest.param("2.0e-3 0.", ["1.0"] * 3, "unit", id="unit"),
        pytest.param("2.0e-3 0.", ["1.0", "1.0", "-1.0"], "unit", id="unit with signs"),
    ],
)
def test_normalisation_is_recognised_within_errors_and_digits(
    tmp_path: Path, section: str, weights: list[str], expected: str | None
) -> None:
    init = INIT.replace("2.0e-3 1.0e-6", section)
    assert converted(text_of(with_weights(*weights), init=init), tmp_path)[0]["normalisation"] == expected


def test_an_ambiguous_normalisation_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    converted(text_of(event()), tmp_path)
    assert "both agree; give normalisation" in caplog.text


def test_with_trials_weights_average_to_the_sum_of_weights_over_that_of_trials(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trials = (1, 8, 0, 3)
    events = "".join(event(RWGT, tag=f"<event trials='{n}' muf2='1936'>", weight=f"{n}e-3") for n in trials)
    events = events.replace("trials='3'", "Trials=3") + f"<!-- {event(tag='<event trials=5>')} -->\n"
    summary, tree = converted(text_of(events, init=INIT.replace("2.0e-3", "1.0")), tmp_path)
    weights = 1e-3 * np.array(trials)
    assert np.mean(tree["Weight"]) == pytest.approx(weights.sum() / 12)
    np.testing.assert_allclose(ak.flatten(tree["Weight"]), weights * 4 / 12)
    np.testing.assert_allclose(tree["Rwgt"], np.full((4, 1), 4 / 12) * [[1e-3, 2.5e-3]])
    assert summary["cross_section_pb"] == pytest.approx(1e-3)
    # 12 attempts, of which these 4 have a weight: the error of a sum of 12 terms
    expected = np.sqrt(12 * np.var([*weights, *np.zeros(8)])) / 12
    assert summary["cross_section_error_pb"] == pytest.approx(expected)
    assert (summary["normalisation"], summary["n_trials"], summary["n_events"]) == ("mean", 12, 4)
    assert "sum of weights over the sum of trials" in caplog.text


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        (("<event trials='2'>", "<event>"), "event 2: <event> does not say its trials"),
        (("<event>", "<event trials='2'>"), "event 2: it has trials, and the events before have none"),
        (("<event trials='2'>", "<event trials='-2'>"), "event 2: trials are '-2'"),
        (("<event trials='2'>", "<event trials='x'>"), "event 2: <event trials='x'> does not say its trials"),
        (("<event trials='0'>", "<event trials='0'>"), "trials of 2 events add up to 0"),
    ],
)
def test_trials_that_are_not_there_for_all_events_are_refused(
    tmp_path: Path, tags: tuple[str, str], message: str
) -> None:
    with pytest.raises(InputFileError, match=message):
        converted(text_of("".join(event(tag=tag) for tag in tags)), tmp_path)


def test_no_two_texts_become_one_tree(tmp_path: Path) -> None:
    for name in ("one/a.lhe", "two/a.lhe", "one/a.lhe.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text_of(event()))
    (tmp_path / "link").symlink_to(tmp_path / "one")
    one, two, zipped, link = (
        tmp_path / name for name in ("one/a.lhe", "two/a.lhe", "one/a.lhe.gz", "link/a.lhe")
    )
    for arguments in ((one, two, "-o", tmp_path / "out"), (one, zipped), (one, link), (one, one)):
        answer = milanalysis("convert", *arguments)
        assert answer.exit_code == 2
        assert "would both become" in answer.output or "is given twice" in answer.output
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.rglob("*.root"))
    assert conversion_targets([one, two]) == [tmp_path / "one/a.lhef.root", tmp_path / "two/a.lhef.root"]


def test_a_later_command_does_not_write_over_the_tree_of_another_text(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.lhe").write_text(text_of(event()))
    assert milanalysis("convert", tmp_path / "one" / "a.lhe", "-o", tmp_path / "out").exit_code == 0
    before = (tmp_path / "out" / "a.lhef.root").read_bytes()
    answer = milanalysis("convert", tmp_path / "two" / "a.lhe", "-o", tmp_path / "out")
    assert answer.exit_code == 2
    assert f"made from {tmp_path / 'one' / 'a.lhe'}" in answer.output
    assert (tmp_path / "out" / "a.lhef.root").read_bytes() == before
    assert milanalysis("convert", tmp_path / "one" / "a.lhe", "-o", tmp_path / "out").exit_code == 0


def test_trees_go_beside_the_link_the_user_names(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "real.lhe").write_text(text_of(event()))
    (tmp_path / "link.lhe").symlink_to(tmp_path / "far" / "real.lhe")
    assert milanalysis("convert", tmp_path / "link.lhe").exit_code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "far",
        "link.lhe",
        "link.lhef.json",
        "link.lhef.root",
    ]
    assert [path.name for path in (tmp_path / "far").iterdir()] == ["real.lhe"]


@pytest.mark.parametrize(
    "name", ["root:::site:1094::disk.lhe", "run[1].lhe", "[red].lhe", "a b#?*.lhe", "\xfc.lhe"]
)
def test_names_of_files_are_taken_as_they_are(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(text_of(event() * 2))
    answer = milanalysis("convert", tmp_path / name)
    assert answer.exit_code == 0
    assert f"{name.replace('.lhe', '.lhef.root')}: 2 events, 0 weights; normalisation: mean" in answer.output
    with (tmp_path / name.replace(".lhe", ".lhef.root")).open("rb") as stream, uproot.open(stream) as file:
        assert file["LHEF"].num_entries == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is a directory; .*/\\*.lhe.gz"),
        (b"root\0\0", "is a ROOT file"),
        (b"\xfd7zXZ\0", "compressed with xz"),
        (b"BZh91AY", "compressed with bzip2"),
        (b"\xff\xfe<\0L\0", "UTF-16"),
        (b"", "is empty"),
        (b"\x01\x00\x02nonsense", "is not a Les Houches file"),
        (b"\x1f\x8b\x08nonsense", "is truncated or damaged|is not a Les Houches file"),
        (b"nonsense", "is not a Les Houches file"),
        (text_of(event()).split("</init>")[0].encode(), "it ends before </init>"),
    ],
)
def test_what_is_no_les_houches_text_is_refused_with_one_message(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "x.lhe"
    path.mkdir() if content is None else path.write_bytes(content)
    answer = milanalysis("convert", path, "-o", tmp_path / "out")
    assert answer.exit_code == 2, answer.output
    assert answer.output.startswith("error: ")
    assert re.search(message, answer.output)
    assert not list(tmp_path.rglob("*.root"))


def test_of_several_files_the_one_that_fails_is_named(tmp_path: Path) -> None:
    (tmp_path / "good.lhe").write_text(text_of(event()))
    (tmp_path / "bad.lhe").write_text(text_of(event() + BROKEN + event()))
    answer = milanalysis("convert", tmp_path / "good.lhe", tmp_path / "bad.lhe")
    assert answer.exit_code == 2
    assert "bad.lhe: event 2 (line 13) has no </event>" in answer.output
