"""Exporters on their own: what they are asked, what they keep."""

import json

import pytest

import pgest


class Exported:
    """Stands for an agent whose exports are empty directories, as the real ones named."""

    def __init__(self):
        self.count = 0
        self.asked = []

    def export_saved_model(self, export_dir_base, *, checkpoint_path=None):
        self.count += 1
        self.asked.append(checkpoint_path)
        path = export_dir_base / str(1_000_000_000 + self.count)
        path.mkdir(parents=True)
        return str(path)


def run(exporter, directory, means, *, final=True):
    """Shows results with these mean returns; returns what was exported."""
    agent = Exported()
    paths = [
        exporter.export(agent, directory, f"ckpt-{i}", {"return_mean": mean}, False)
        for i, mean in enumerate(means)
    ]
    if final:
        last = {"return_mean": means[-1]}
        paths.append(exporter.export(agent, directory, f"ckpt-{len(means) - 1}", last, True))
    return agent.asked, [path is not None for path in paths]


def names(directory):
    return sorted(int(path.name) - 1_000_000_000 for path in directory.iterdir() if path.is_dir())


def test_the_best_is_exported_when_it_is_better(tmp_path):
    asked, exported = run(pgest.BestExporter(), tmp_path, [1.0, 3.0, 3.0, 2.0, 4.0])
    assert asked == ["ckpt-0", "ckpt-1", "ckpt-4"]
    assert exported == [True, True, False, False, True, False]
    assert json.loads((tmp_path / "best_results.json").read_text()) == {"return_mean": 4.0}


def test_a_later_run_measures_itself_against_the_best(tmp_path):
    run(pgest.BestExporter(), tmp_path / "a", [2.0])
    asked, _ = run(pgest.BestExporter(), tmp_path / "a" / "..", [1.0])
    assert asked == ["ckpt-0"]  # another directory
    later = pgest.BestExporter()
    assert later.export(Exported(), tmp_path / "a", "c", {"return_mean": 1.0}, False) is None


@pytest.mark.parametrize("damaged", [b"", b"\xff\xfe", b'{"return_mean": ', b"[1]", b'{"a": null}'])
def test_damaged_results_are_told_and_replaced(tmp_path, damaged):
    (tmp_path / "best_results.json").write_bytes(damaged)
    with pytest.warns(UserWarning, match="does not hold the results of an export") as told:
        run(pgest.BestExporter(), tmp_path, [1.0], final=False)
    assert len(told) == 1 and told[0].filename == __file__
    assert json.loads((tmp_path / "best_results.json").read_text()) == {"return_mean": 1.0}


def test_the_newest_exports_are_kept(tmp_path):
    run(pgest.BestExporter(exports_to_keep=2), tmp_path / "best", [1.0, 2.0, 3.0])
    assert names(tmp_path / "best") == [2, 3]
    run(pgest.LatestExporter(exports_to_keep=1), tmp_path / "latest", [1.0, 2.0, 3.0])
    assert names(tmp_path / "latest") == [3]
    run(pgest.LatestExporter(exports_to_keep=None), tmp_path / "all", [1.0, 2.0, 3.0])
    assert names(tmp_path / "all") == [1, 2, 3]


def test_the_last_evaluation_is_exported_once(tmp_path):
    asked, exported = run(pgest.LatestExporter(), tmp_path, [1.0, 2.0])
    assert asked == ["ckpt-0", "ckpt-1"] and exported == [True, True, True]


def test_the_final_exporter_waits_for_the_end(tmp_path):
    asked, exported = run(pgest.FinalExporter(), tmp_path, [1.0, 2.0])
    assert asked == ["ckpt-1"] and exported == [False, False, True]


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: pgest.FinalExporter("a/b"), ValueError, "name that can be a directory's"),
        (lambda: pgest.BestExporter(compare_fn=3), TypeError, "compare_fn.best_eval_result"),
        (lambda: pgest.LatestExporter(exports_to_keep=0), ValueError, "exports_to_keep"),
        (lambda: pgest.Exporter("x").export(None, "", "", {}, True), NotImplementedError, "export"),
    ],
)
def test_what_does_not_fit_is_told(make, error, match):
    with pytest.raises(error, match=match):
        make()
