"""What goes wrong in an analyst's processor is told from what is wrong with a file."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import uproot
from conftest import SMALL, milanalysis, write_config
from test_processing import FEATURES, GENUINE, ITERATIVE, POINTS, processor_file

from milanalysis.config import DelphesFormatConfig, FuturesExecutorConfig
from milanalysis.errors import InputFileError, ProcessorError, UnreadableEventsError
from milanalysis.events.files.samples import Sample, open_sample
from milanalysis.events.processing.processors import load_processor, make_processor, run_processor
from milanalysis.events.processing.tables_of_samples import make_tables

FUTURES = FuturesExecutorConfig(workers=1)


def write_delphes(path: Path, n_events: int, *, seed: int = 0, between: str = ".", step: int = 0) -> Path:
    """Write a small Delphes tree; branches are ``Jet.PT``, or ``Jet/Jet.PT`` with another ``between``."""
    rng = np.random.default_rng(seed)
    one, two = np.ones(n_events, dtype=np.int64), np.full(n_events, 2)

    def lists(counts: Any, **columns: Any) -> ak.Array:
        return ak.zip({name: ak.unflatten(values, counts) for name, values in columns.items()})

    def numbers(n: int, low: float, high: float) -> Any:
        return rng.uniform(low, high, n).astype(np.float32)

    def leptons(counts: Any) -> ak.Array:
        n = int(counts.sum())
        return lists(
            counts, PT=numbers(n, 30, 90), Eta=numbers(n, -2, 2), Phi=numbers(n, -3, 3),
            Charge=np.resize([1, -1], n).astype(np.int32), IsolationVar=np.zeros(n, dtype=np.float32),
        )  # fmt: skip

    n_jets = 2 * n_events
    collections = {
        "Event": lists(one, Number=np.arange(n_events), Weight=np.full(n_events, 2e-3, dtype=np.float32)),
        "Electron": leptons(two),
        "Muon": leptons(0 * one),
        "Jet": lists(
            two, PT=numbers(n_jets, 30, 90), Eta=np.resize([3.5, -3.5], n_jets).astype(np.float32),
            Phi=numbers(n_jets, -3, 3), Mass=np.zeros(n_jets, dtype=np.float32),
            BTag=np.zeros(n_jets, dtype=np.uint32), Charge=rng.integers(-1, 2, n_jets).astype(np.int32),
        ),
        "MissingET": lists(one, MET=numbers(n_events, 30, 90), Phi=numbers(n_events, -3, 3)),
    }  # fmt: skip
    return write_collections(path, collections, between=between, step=step)


def write_collections(
    path: Path, collections: dict[str, ak.Array], *, between: str = ".", step: int = 0
) -> Path:
    """Write a Delphes tree of some collections, in baskets of so many events."""
    n_events = len(next(iter(collections.values())))
    with uproot.recreate(path) as out:
        tree = out.mktree(
            "Delphes",
            {name: values.type for name, values in collections.items()},
            counter_name=lambda name: f"{name}_size",
            field_name=lambda outer, inner: (
                f"{outer}{between}{inner}".replace("//", f"/{outer}.") if outer else inner
            ),
        )
        for start in range(0, n_events, step or n_events):
            stop = start + (step or n_events)
            tree.extend({name: values[start:stop] for name, values in collections.items()})
    return path


def opened(*files: Path, **settings: Any) -> Sample:
    return open_sample("x", files, source=DelphesFormatConfig(), theta=0.0, **settings)


def with_mistake(path: Path, mistake: str) -> Path:
    """Write the feature processor with a line that fails on chunks of five events."""
    line = "        found = read_objects(events)\n"
    path.write_text(FEATURES.read_text().replace(line, f"{line}        if len(events) == 5: {mistake}\n", 1))
    return path


@pytest.mark.parametrize("executor", [ITERATIVE, FUTURES], ids=["iterative", "futures"])
@pytest.mark.parametrize("between", [".", "//"], ids=["Jet.PT", "Jet/Jet.PT"])
@pytest.mark.parametrize("on_bad_file", ["fail", "skip"])
def test_a_mistake_in_a_processor_is_no_damage_of_the_file(
    tmp_path: Path, between: str, on_bad_file: Any, executor: Any
) -> None:
    files = [write_delphes(tmp_path / f"{n}.root", n, seed=n, between=between) for n in (6, 5)]
    processor = with_mistake(tmp_path / "mine.py", 'raise KeyError("typo")')
    line = next(i for i, text in enumerate(processor.read_text().splitlines(), 1) if "typo" in text)
    expected = (
        rf"5\.root \(events 0 to 4\): processing failed with KeyError: 'typo' \(.*mine\.py, line {line}\)"
    )
    with pytest.raises(ProcessorError, match=expected):
        make_tables(
            load_processor(processor)(), opened(*files), tmp_path / "out",
            executor=executor, chunk_size=10, on_bad_file=on_bad_file,
        )  # fmt: skip


@pytest.mark.parametrize("wrong", ["features.py", "bag_likelihood.py"])
def test_a_mistake_is_found_in_the_file_it_is_in_when_bags_are_evaluated(tmp_path: Path, wrong: str) -> None:
    """The bag processor calls the selection of the other one."""
    for name, line in (
        ("features.py", "found = read_objects(events)"),
        ("bag_likelihood.py", "chunk = chunk_name(events)"),
    ):
        source = FEATURES.with_name(name).read_text()
        mistake = "\n        {}['typo']" if name == wrong else ""
        (tmp_path / name).write_text(source.replace(line, f"{line}{mistake}", 1))
    selection = make_processor(tmp_path / "features.py")
    bags = make_processor(tmp_path / "bag_likelihood.py", selection, {}, np.zeros((1, 1)))
    sample = opened(write_delphes(tmp_path / "x.root", 5))
    with pytest.raises(
        ProcessorError, match=rf"failed with KeyError: 'typo' \(.*{re.escape(wrong)}, line \d+\)"
    ):
        run_processor(bags, sample, executor=ITERATIVE, chunk_size=10)


@pytest.mark.parametrize(
    ("mistake", "text"),
    [
        ("raise Exception('plain')", r"failed with Exception: plain \(.*, line"),
        ("raise SystemExit(3)", r"failed with RuntimeError: SystemExit: 3; a processor raises"),
        ("raise GeneratorExit", r"failed with RuntimeError: GeneratorExit: ; a processor raises"),
        (
            "raise type('Odd', (Exception,), {'__str__': lambda self: str(1 / 0)})",
            r"failed with Odd \(its text cannot be had",
        ),
        ("open('/nowhere/scale_factors.json')", r"failed with FileNotFoundError: .*scale_factors"),
        ("events.Jet.Nonsense", r"failed with AttributeError: .*Nonsense"),
        ("import uproot; uproot.open('/nowhere/sf.root')", r"failed with FileNotFoundError"),
        ("raise OSError('basket of the analyst')", r"failed with OSError: basket of the analyst"),
    ],
)
def test_whatever_a_processor_raises_is_reported_with_its_line(
    tmp_path: Path, mistake: str, text: str
) -> None:
    file = write_delphes(tmp_path / "five.root", 5)
    processor = load_processor(with_mistake(tmp_path / "mine.py", mistake))()
    with pytest.raises(ProcessorError, match=text) as caught:
        run_processor(processor, opened(file), executor=ITERATIVE, chunk_size=10, scratch=tmp_path)
    assert not isinstance(caught.value, InputFileError)
    assert "damaged" not in str(caught.value)


@pytest.mark.parametrize("branch", ["Jet.PT", "Jet.Charge", "Jet_size"])
def test_a_damaged_basket_is_found_in_whatever_branch_the_processor_reads(
    tmp_path: Path, branch: str
) -> None:
    """`Jet.Charge` is none that every selection reads."""
    file = write_delphes(tmp_path / "x.root", 4000, step=2000)
    with uproot.open({file: "Delphes"}) as tree:
        seek = int(tree[branch].member("fBasketSeek")[1])
        size = int(tree[branch].basket(1).compressed_bytes)
    sample = opened(file)
    with file.open("r+b") as stream:
        stream.seek(seek + 150)
        stream.write(b"\xff" * min(200, size - 150))
    body = "return {'n': int(sum(events.Jet.Charge[:, 0])) + int(sum(events.Jet.PT[:, 0] > 0))}"
    reading = load_processor(processor_file(tmp_path / "reading.py", body))()
    with pytest.raises(
        UnreadableEventsError, match=r"x\.root \(events 2000 to 3999\) cannot be read: the file is damaged"
    ):
        run_processor(reading, sample, executor=ITERATIVE, chunk_size=2000)
    mistaken = load_processor(processor_file(tmp_path / "mistaken.py", "raise KeyError('typo')"))()
    with pytest.raises(ProcessorError, match="typo"):  # in the first chunk, which is good
        run_processor(mistaken, sample, executor=ITERATIVE, chunk_size=2000)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("return {'n': len(events) if events.metadata['entrystart'] else 'few'}", "cannot be put together"),
        ("return None", "Output of process"),
    ],
)
def test_what_cannot_be_added_up_is_an_error_of_the_processor(tmp_path: Path, body: str, text: str) -> None:
    processor = load_processor(processor_file(tmp_path / "mine.py", body))()
    with pytest.raises(ProcessorError, match=text):
        run_processor(processor, open_sample("x", [GENUINE], theta=0.0), executor=ITERATIVE, chunk_size=500)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("return {}", "KeyError: 'cutflow'"),
        ("return {'cutflow': 7, 'parts': {}}", "'cutflow' is 7"),
        ("return {'cutflow': type(cutflow)({}), 'parts': {}}", r"'cutflow' is Cutflow\(steps=\{\}\)"),
        ("return {'cutflow': type(cutflow)({'read': 500}), 'parts': {}}", "TypeError"),
        ("return {'cutflow': type(cutflow)({'read': (500, 0.1)}), 'parts': {}}", "'cutflow' is Cutflow"),
        ("return {'cutflow': None, 'parts': {}}", "cutflow|cannot be put together"),
        ("return {'cutflow': {'read': 3}, 'parts': {'a': 1}}", "'cutflow' is {'read'"),
        ("return {'cutflow': cutflow, 'parts': {'a': None}}", "'parts' are"),
        ("return {'cutflow': cutflow, 'parts': [1]}", "TypeError"),
    ],
)
def test_an_output_that_cannot_be_used_is_said_with_the_one_expected(
    tmp_path: Path, body: str, text: str
) -> None:
    source = FEATURES.read_text()
    end = source.index('return {"cutflow"')
    (tmp_path / "mine.py").write_text(source[:end] + body + source[source.index("\n", end) :])
    with pytest.raises(ProcessorError, match=rf"(?s)({text}).*(write_part|processors/features)"):
        make_tables(
            load_processor(tmp_path / "mine.py")(), open_sample("x", [GENUINE], theta=0.0), tmp_path / "out",
            executor=ITERATIVE, chunk_size=1000,
        )  # fmt: skip


@pytest.mark.parametrize("place", ["", "        "], ids=["when it is loaded", "when it is made"])
def test_a_processor_that_ends_the_program_does_not_end_the_analysis(tmp_path: Path, place: str) -> None:
    end = f"\n{place}raise SystemExit(0)\n"
    source = FEATURES.read_text()
    if place:
        source = source.replace("    def process(", f"    def __init__(self):{end}\n    def process(", 1)
    (tmp_path / "features.py").write_text(source + ("" if place else end))
    observed = {"kind": "files", "role": "observed", "files": [str(GENUINE)]}
    simulated = {**observed, "role": "simulation", "theta": 0.0, "weight_points": POINTS}
    config = write_config(
        tmp_path / "small.yaml",
        processing={**SMALL["processing"], "features": str(tmp_path / "features.py")},
        samples={"reference": simulated, "observed": observed},
    )
    answer = milanalysis("process", config, "-o", tmp_path / "run")
    assert answer.exit_code == 2
    assert re.search(r"features\.py.*SystemExit: 0", answer.output)
    with pytest.raises(ProcessorError, match=r"features\.py.*SystemExit: 0"):
        make_processor(tmp_path / "features.py")


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("features['late'] = features['met']", "the columns late are in one of them only"),
        ("features = dict(reversed(features.items()))", "their order differs"),
    ],
)
def test_columns_that_differ_between_chunks_are_named(tmp_path: Path, line: str, text: str) -> None:
    source = FEATURES.read_text().replace(
        "return chunk_table(",
        f"if events.metadata['entrystart']:\n            {line}\n        return chunk_table(",
        1,
    )
    (tmp_path / "mine.py").write_text(source)
    with pytest.raises(
        ProcessorError, match=rf"chunks 000000-0{{12}}-\d+ and 000000-\d+500-\d+ of 'out' .*{text}"
    ):
        make_tables(
            load_processor(tmp_path / "mine.py")(), open_sample("x", [GENUINE], theta=0.0), tmp_path / "out",
            executor=ITERATIVE, chunk_size=500,
        )  # fmt: skip


@pytest.fixture(scope="module")
def trained(small_run: tuple[Path, Path, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is trained and not yet evaluated."""
    directory = tmp_path_factory.mktemp("trained") / "run"
    shutil.copytree(small_run[1], directory)
    (directory / "stages" / "infer.json").unlink()
    return directory


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("output['bags'] = {}", "KeyError: '(polynomial|multiclass_bag)'"),
        ("del output['event_id']", "KeyError: 'event_id'"),
        ("output['counts'] = {label: 3 for label in self.models}", "TypeError"),
        ("output['terms'] = dict.fromkeys(self.models, {chunk: 5})", "TypeError"),
        ("output['event_id'] = {chunk: 'abc'}", "event_id|did not see the events|ValueError"),
        (
            "output['bags']['polynomial'][chunk] = output['bags']['polynomial'][chunk][:, :-1]",
            r"have shapes \(\d+, 20\)",
        ),
        (
            "output['bags']['multiclass_bag'][chunk] = output['bags']['multiclass_bag'][chunk][:-1]",
            "have shape",
        ),
        (
            "output['bags']['polynomial'][chunk] = output['bags']['polynomial'][chunk] * float('nan')",
            "not finite",
        ),
        (
            "output['bags']['polynomial'][chunk] = output['bags']['polynomial'][chunk] + 0.1",
            "differ by .* in their sum",
        ),
        ("output['points'] = {}", "KeyError: '(polynomial|multiclass_bag)'"),
    ],
)
def test_an_output_of_a_bag_processor_that_cannot_be_used_is_said(
    small_run: tuple[Path, Path, Any], trained: Path, tmp_path: Path, change: str, text: str
) -> None:
    source = FEATURES.with_name("bag_likelihood.py").read_text()
    (tmp_path / "bags.py").write_text(
        source.replace("        return output\n", f"        {change}\n        return output\n", 1)
    )
    config = write_config(
        tmp_path / "small.yaml",
        processing={**SMALL["processing"], "bag_likelihood": str(tmp_path / "bags.py")},
    )
    answer = milanalysis("infer", config, "-o", trained)
    assert answer.exit_code == 2, answer.output
    assert re.search(text, answer.output), answer.output
    assert "bags.py" in answer.output or "did not see the events" in answer.output


@pytest.mark.parametrize(
    ("end", "text"),
    [("return accumulator['typo']", "KeyError: 'typo'"), ("raise SystemExit(0)", "SystemExit: 0")],
)
def test_an_error_in_postprocess_is_an_error_of_the_processor(tmp_path: Path, end: str, text: str) -> None:
    path = processor_file(tmp_path / "mine.py", "return {'n': len(events)}")
    path.write_text(path.read_text().replace("return accumulator", end))
    with pytest.raises(ProcessorError, match=rf"cannot be put together \({text}\)"):
        run_processor(
            load_processor(path)(),
            open_sample("x", [GENUINE], theta=0.0),
            executor=ITERATIVE,
            chunk_size=1000,
        )


def test_a_processor_that_keeps_what_cannot_be_sent_is_refused(tmp_path: Path) -> None:
    source = FEATURES.read_text().replace(
        "    def process(",
        "    def __init__(self):\n        import threading\n        self.lock = threading.Lock()\n\n"
        "    def process(",
        1,
    )
    (tmp_path / "mine.py").write_text(source)
    with pytest.raises(
        ProcessorError, match=r"mine\.py: the processor keeps 'lock', a lock that cannot be sent"
    ):
        make_tables(
            load_processor(tmp_path / "mine.py")(), open_sample("x", [GENUINE], theta=0.0), tmp_path / "out",
            executor=ITERATIVE, chunk_size=1000,
        )  # fmt: skip


# --- features and cuts at the door
# ------------------------------------------------------------------------------


def run_with(tmp_path: Path, line: str, *, before: str = "return chunk_table(") -> None:
    source = FEATURES.read_text()
    (tmp_path / "mine.py").write_text(source.replace(before, f"{line}\n        {before}", 1))
    make_tables(
        load_processor(tmp_path / "mine.py")(), open_sample("x", [GENUINE], theta=0.0), tmp_path / "out",
        executor=ITERATIVE, chunk_size=1000,
    )  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [
        "weight",
        "weight_jes_up",
        "weight_x",
        "w_1",
        "w_12",
        "theta",
        "theta_ll",
        "theta_0",
        "event_id",
        "split",
        "momenta_digest",
    ],
)
def test_features_with_reserved_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(
        ProcessorError, match=rf"a feature is called '{re.escape(name)}', .*\(.*mine\.py, line \d+\)"
    ):
        run_with(tmp_path, f"features[{name!r}] = features['met']")


def test_names_like_reserved_ones_are_free(tmp_path: Path) -> None:
    run_with(
        tmp_path, "features['weighted_ht'] = features['w_mass'] = features['thetastar'] = features['met']"
    )


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("features.clear()", "gives no features"),
        ("features[''] = features['met']", "a feature is called ''"),
        ("features[3] = features['met']", "a feature is called 3"),
        ("features['odd'] = features['met'][1:]", r"feature 'odd' has shape \(999,\) and 1000 events"),
        ("features['odd'] = 1.0", r"feature 'odd' has shape \(\)"),
        ("features['odd'] = jets[keep].pt[:, :0]", r"feature 'odd' has shape \(1000, 0\)"),
        ("features['odd'] = found.leptons.pt[ak.argsort(found.leptons.pt) == 0]", "real|one value|shape"),
        ("features['odd'] = ['a'] * 1000", "feature 'odd' has values of type <U1"),
        ("features['odd'] = features['met'] * 1j", "feature 'odd' has values of type complex"),
        ("features['odd'] = features['met'] * 1e39", "the features odd are not finite"),
        (
            "features['odd'] = ak.mask(ak.Array(features['met']), features['met'] > 50)",
            r"'odd' is undefined \(None\) for \d+ events",
        ),
    ],
)
def test_features_that_are_no_numbers_are_refused(tmp_path: Path, line: str, text: str) -> None:
    with pytest.raises(ProcessorError, match=text):
        run_with(tmp_path, line)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("cuts = {**cuts, 'finite weights': found.finite}", "a cut is called 'finite weights'"),
        ("cuts = {**cuts, 7: found.finite}", "a cut is called 7; its name should be a word"),
        ("cuts = {**cuts, ' ': found.finite}", "a cut is called ' '"),
        ("cuts = {**cuts, 'odd': found.finite[1:]}", r"cut 'odd' has shape \(999,\)"),
        ("cuts = {**cuts, 'odd': found.missing.pt}", r"cut 'odd' has .* type float64"),
        (
            "cuts = {**cuts, 'odd': ak.mask(ak.Array(found.finite), found.missing.pt > 50)}",
            r"cut 'odd' is undefined \(None\)",
        ),
    ],
)
def test_cuts_that_do_not_say_yes_or_no_are_refused(tmp_path: Path, line: str, text: str) -> None:
    with pytest.raises(ProcessorError, match=text):
        run_with(tmp_path, line, before="keep, cutflow = apply_cuts(")
