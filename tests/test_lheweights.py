"""Event weights of Les Houches text, in every form: read with their names, or refused with event and line."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_lhetext import COMPACT, INIT, NAMES, RWGT, converted, event, text_of

from milanalysis.errors import InputFileError

TWO = [[1e-3, 2.5e-3]] * 2


@pytest.mark.parametrize(
    ("header", "rest", "names", "weights"),
    [
        pytest.param(NAMES, RWGT, ["a", "b"], TWO, id="rwgt"),
        pytest.param(NAMES, RWGT.replace("'", ""), ["a", "b"], TWO, id="unquoted"),
        pytest.param(
            NAMES, RWGT.replace("id='a'", "id = ' a '"), ["a", "b"], TWO, id="blanks around the name"
        ),
        pytest.param(NAMES, RWGT.replace("id=", "ID="), ["a", "b"], TWO, id="capitals"),
        pytest.param(NAMES, RWGT.replace("id=", "name="), ["a", "b"], TWO, id="name instead of id"),
        pytest.param(NAMES, RWGT.replace(" id='a'", "").replace(" id='b'", ""), ["0", "1"], TWO, id="no id"),
        pytest.param(
            "", RWGT.replace("'a'", "'1002'").replace("'b'", "'0'"), ["1002", "0"], TWO, id="integers"
        ),
        pytest.param("", RWGT.replace("'a'", "'a&gt;1'"), ["a>1", "b"], TWO, id="escaped name"),
        pytest.param("", RWGT.replace("'a'", '"a>1"'), ["a>1", "b"], TWO, id="quoted >"),
        pytest.param("", RWGT.replace("\n", " ") + "\n", ["a", "b"], TWO, id="one line"),
        pytest.param("", RWGT.replace(" 1e-3 ", "\n1D-3\n"), ["a", "b"], TWO, id="D, and lines of their own"),
        pytest.param("", RWGT.replace(" 1e-3 ", "<![CDATA[1e-3]]>"), ["a", "b"], TWO, id="CDATA"),
        pytest.param(
            "", "# <event> and </rwgt>\n".replace("<event>", "event") + RWGT, ["a", "b"], TWO, id="comment"
        ),
        pytest.param(
            "",
            "<mgrwt>\n<rscale> 0 0.1E+02</rscale>\n<pdfrwt beam='1'> 1 2 0.1 0.2</pdfrwt>\n</mgrwt>\n" + RWGT,
            ["a", "b"],
            TWO,
            id="what MadGraph reweights with",
        ),
        pytest.param(
            "",
            f"<mgrwt>\n<pdfrwt beam='1'> {'1 ' * 13}</pdfrwt>\n<pdfrwt>{'1 ' * 11}</pdfrwt>\n</mgrwt>\n"
            + RWGT,
            ["a", "b"],
            TWO,
            id="as many numbers as a particle has",
        ),
        pytest.param(
            "",
            "# <wgt id='z'> 7 </wgt>\n"
            + RWGT.replace("<wgt id='b'", " # <wgt id='b'> 7 </wgt>\n<wgt id='b'"),
            ["a", "b"],
            TWO,
            id="weights commented out by #",
        ),
        pytest.param(
            "",
            '<weight name="x"> 1e-3 </weight>\n<weight name="y"> 2.5e-3 </weight>\n',
            ["x", "y"],
            TWO,
            id="version 2",
        ),
        pytest.param(NAMES, COMPACT, ["a", "b"], TWO, id="compact"),
        pytest.param("", COMPACT, ["0", "1"], TWO, id="compact without names"),
        pytest.param(NAMES + NAMES, COMPACT, ["a", "b"], TWO, id="compact, the list of names twice"),
        pytest.param(f"<!--\n{NAMES}-->\n", COMPACT, ["0", "1"], TWO, id="compact, names commented out"),
        pytest.param(f"<![CDATA[\n{NAMES}]]>\n", COMPACT, ["a", "b"], TWO, id="compact, names in CDATA"),
        pytest.param(
            NAMES.replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;"),
            COMPACT,
            ["a", "b"],
            TWO,
            id="compact, names escaped",
        ),
        pytest.param(
            "<initrwgt><weight id='a'/><weight id='b' /></initrwgt>\n",
            COMPACT,
            ["a", "b"],
            TWO,
            id="empty tags",
        ),
        pytest.param(
            NAMES + "<card>\n<weight id='c'>no</weight>\n</card>\n", COMPACT, ["a", "b"], TWO, id="elsewhere"
        ),
        pytest.param(NAMES.replace('"', ""), COMPACT, ["a", "b"], TWO, id="compact, names without quotes"),
        pytest.param(
            NAMES,
            RWGT + "<weights> 7 </weights>\n",
            ["a", "b", "2"],
            [[1e-3, 2.5e-3, 7.0]] * 2,
            id="two forms",
        ),
    ],
)
def test_weights_of_every_form_are_read_with_their_names(
    tmp_path: Path, header: str, rest: str, names: list[str], weights: list[list[float]]
) -> None:
    summary, tree = converted(text_of(event(rest) * 2, header=header), tmp_path)
    assert summary["weight_names"] == names
    assert tree["Rwgt"] == weights


@pytest.mark.parametrize(
    "init",
    [INIT + NAMES, INIT + '<weightinfo name="a"/>\n<weightinfo name="b"/>\n', NAMES + INIT],
    ids=["initrwgt", "weightinfo", "before the numbers"],
)
def test_names_in_init_belong_to_compact_weights(tmp_path: Path, init: str) -> None:
    summary, tree = converted(text_of(event(COMPACT) * 2, init=init), tmp_path)
    assert (summary["weight_names"], tree["Rwgt"]) == (["a", "b"], TWO)
    assert summary["cross_section_pb"] == 2e-3


@pytest.mark.parametrize(
    ("header", "rest", "message"),
    [
        ("", RWGT.replace("2.5e-3", "2.5e-3 >"), r"event 2: .*2\.5e-3 >.* is no weight .* \(line 23\)"),
        ("", RWGT.replace("2.5e-3", ""), r"event 2: .*id='b'.* is no weight .* \(line 23\)"),
        ("", RWGT.replace("2.5e-3", "1 2"), r"event 2: .*is no weight .* \(line 23\)"),
        ("", RWGT.replace("2.5e-3", "*****"), r"event 2: weight 'b': '\*{5}' is not a number .*\(line 23\)"),
        ("", RWGT.replace("<wgt id='b'", "< wgt id='b'"), r"event 2: .*is no weight .* \(line 23\)"),
        ("", RWGT.replace("'b'", "'b"), r"event 2: .*is no weight .* \(line 23\)"),
        ("", RWGT.replace("wgt", "WGT"), r"event 2: .*is no weight .* \(line 21\)"),
        ("", RWGT.replace("</rwgt>\n", ""), r"event 2: '<rwgt>' is no weight"),
        ("", "<rwgt> 1 2 </rwgt>\n", "event 2: .*is no weight"),
        ("", "<rwgt><wgt id='a' value='1'/></rwgt>\n", "event 2: .*is no weight"),
        ("", RWGT.replace("<", "&lt;"), "event 2: .*is no weight"),
        ("", RWGT.replace("'b'", "'a'"), r"event 2: there are 2 weights of the name 'a'.*\(line 23\)"),
        ("", RWGT.replace("id='b'", "'b'"), "event 2: the name of a weight: \"'b'\" is not an attribute"),
        ("", RWGT.replace("'b'", "'c'"), r"event 2: it has 2 weights \(a, c\) .* 2 \(a, b\)"),
        ("", COMPACT, r"event 2: it has 2 weights \(0, 1\)"),
        ("", "", r"event 2: it has 0 weights"),
    ],
)
def test_weights_that_cannot_be_read_are_refused_with_event_and_line(
    tmp_path: Path, header: str, rest: str, message: str
) -> None:
    with pytest.raises(InputFileError, match=rf"made\.lhe cannot be read in {message}"):
        converted(text_of(event(RWGT) + event(rest), header=header), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["made.lhe"]


def test_compact_weights_with_other_names_than_values_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match=r"the header names 2 weights \(a, b\) and the event has 3"):
        converted(text_of(event("<weights> 1 2 3 </weights>\n"), header=NAMES), tmp_path)
    with pytest.raises(InputFileError, match="2 weights of the name 'a'"):
        converted(text_of(event(COMPACT), header=NAMES.replace('"b"', '"a"')), tmp_path)


def test_a_different_order_of_weights_in_a_later_event_is_put_right(tmp_path: Path) -> None:
    first = "<rwgt><wgt id='x'> 1 </wgt><wgt id='y'> 2 </wgt><wgt id='z'> 3 </wgt></rwgt>\n"
    later = "<rwgt><wgt id='z'> 30 </wgt><wgt id='x'> 10 </wgt><wgt id='y'> 20 </wgt></rwgt>\n"
    _, tree = converted(text_of(event(first) + event(later) + event(first)), tmp_path)
    assert tree["Rwgt"] == [[1, 2, 3], [10, 20, 30], [1, 2, 3]]


@pytest.mark.parametrize(
    ("header", "rest", "said"),
    [
        (NAMES, RWGT.replace("'b'", "'c'"), ["do not have: b", "does not name: c"]),
        (NAMES, "", ["events do not have: a, b"]),
        ("", COMPACT, ["numbered from 0"]),
        ("", "#new weight,renfact,facfact,pdf1,pdf2 0.5 1.0 2.0 10550 10550 lha\n", ["are left out"]),
        ("", RWGT.replace("1e-3", "NaN"), ["2 events have weights that are not finite"]),
    ],
)
def test_what_is_odd_about_weights_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, header: str, rest: str, said: list[str]
) -> None:
    converted(text_of(event(rest) * 2, header=header), tmp_path)
    for words in said:
        assert words in caplog.text
    assert len(caplog.records) == len(said)
