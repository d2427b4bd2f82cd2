import json

import pytest
import tensorflow as tf

from pgest import graph_environments, hooks
from pgest.hooks import monitor
from tests.hooks.hooks_driver import PayEnv, Run, Update

EACH_STEP = monitor.Every(steps=1)


def played(directory, hook, weights, start=0):
    run = Run(directory)
    run.step = start
    return run.drive([hook], [Update(weight=weight) for weight in weights])


def weight_of(checkpoint):
    weight = tf.Variable(-1.0)
    tf.train.Checkpoint(weight=weight).read(checkpoint).assert_consumed()
    return float(weight.numpy())


def test_evaluations_at_crossings_and_at_the_end():
    run = played(None, hooks.EvaluationHook(PayEnv(), monitor.Every(steps=2)), [1.0, 2.0, 3.0])
    assert [(item.step, item.mean_return) for item in run.evaluations] == [(2, 2.0), (3, 3.0)]


def test_the_end_does_not_evaluate_the_same_weights_again():
    run = played(None, hooks.EvaluationHook(PayEnv(), monitor.Every(steps=2)), [1.0, 2.0])
    assert [item.step for item in run.evaluations] == [2]


def test_the_end_does_not_evaluate_where_told_not_to_or_where_the_run_failed():
    hook = hooks.EvaluationHook(PayEnv(), monitor.Every(steps=9), at_end=False)
    assert played(None, hook, [1.0]).evaluations == []
    hook, run = hooks.EvaluationHook(PayEnv(), monitor.Every(steps=9)), Run()
    with pytest.raises(hooks.NanLossDuringTrainingError):
        run.drive([hooks.NanTensorHook(), hook], [Update(metrics={"loss": float("nan")})])
    assert run.evaluations == []


def test_broken_weights_are_not_evaluated():
    hook, run = hooks.EvaluationHook(PayEnv(), EACH_STEP), Run()
    run.drive([hooks.NanTensorHook(False), hook], [Update(metrics={"loss": float("nan")})])
    assert run.evaluations == []


def test_the_best_checkpoint_is_kept(tmp_path):
    hook = hooks.EvaluationHook(PayEnv(), EACH_STEP, episodes=3)
    played(tmp_path, hook, [1.0, 5.0, 3.0])
    best = tmp_path / "best"
    assert sorted(path.name for path in best.iterdir()) == [
        "best.json",
        "checkpoint",
        "ckpt-2.data-00000-of-00001",
        "ckpt-2.index",
    ]
    assert tf.train.latest_checkpoint(str(best)) == hook.best.path == f"{best}/ckpt-2"
    assert weight_of(hook.best.path) == 5.0
    assert json.loads((best / "best.json").read_text()) == {
        "checkpoint": "ckpt-2",
        "episode": 0,
        "episodes": 3,
        "results": {"return_mean": 5.0, "return_std": 0.0},
        "return": 5.0,
        "step": 2,
        "timestep": 0,
    }


def test_an_equal_return_keeps_the_first(tmp_path):
    hook = hooks.EvaluationHook(PayEnv(), EACH_STEP)
    played(tmp_path, hook, [5.0, 5.0])
    assert hook.best.path.endswith("ckpt-1")


def test_the_best_of_an_earlier_run_is_the_mark(tmp_path):
    played(tmp_path, hooks.EvaluationHook(PayEnv(), EACH_STEP), [1.0, 5.0])
    hook = hooks.EvaluationHook(PayEnv(), EACH_STEP)
    played(tmp_path, hook, [4.0], start=2)
    assert hook.best.mean_return == 5.0 and weight_of(hook.best.path) == 5.0
    played(tmp_path, hook, [6.0], start=3)
    assert hook.best.mean_return == 6.0 and weight_of(hook.best.path) == 6.0


def test_a_better_one_at_the_same_step_does_not_write_over_the_old_files(tmp_path):
    hook = hooks.EvaluationHook(PayEnv(), EACH_STEP)
    played(tmp_path, hook, [5.0])
    played(tmp_path, hook, [6.0])
    assert hook.best.path == f"{tmp_path}/best/ckpt-1-1" and weight_of(hook.best.path) == 6.0
    assert len(list((tmp_path / "best").glob("*.index"))) == 1


def test_a_reader_never_sees_half_a_best_checkpoint(tmp_path, monkeypatch):
    hook = hooks.EvaluationHook(PayEnv(), EACH_STEP)
    played(tmp_path, hook, [5.0])
    seen = []
    rename = tf.io.gfile.rename

    def looking_rename(*arguments, **keywords):
        best = hooks.BestCheckpoint(str(tmp_path / "best"))
        seen.append((best.mean_return, weight_of(best.path)))
        rename(*arguments, **keywords)
        best = hooks.BestCheckpoint(str(tmp_path / "best"))
        seen.append((best.mean_return, weight_of(best.path)))

    # Looks at the directory around every rename; the real one is done each time.
    monkeypatch.setattr(tf.io.gfile, "rename", looking_rename)
    hook.best.keep(f"{tmp_path}/ckpt-1", 7.0)
    assert [mean for mean, _ in seen] == [5.0, 7.0, 7.0, 7.0]
    assert all(weight == 5.0 for _, weight in seen)


def test_a_record_that_names_another_directory_is_not_followed(tmp_path, caplog):
    hook = hooks.EvaluationHook(PayEnv(), EACH_STEP)
    played(tmp_path, hook, [5.0])
    best = tmp_path / "best"
    for file in best.glob("ckpt-1.*"):
        (tmp_path / file.name.replace("ckpt-1", "other")).write_bytes(file.read_bytes())
    others = {path.name for path in tmp_path.iterdir()}
    for named, found in (("../ckpt-1", str(best / "ckpt-1")), ("../other", None)):
        (best / "best.json").write_text(json.dumps({"return": 9.0, "checkpoint": named}))
        caplog.clear()
        assert hooks.BestCheckpoint(str(best)).path == found
        assert repr(named) in caplog.text
    played(tmp_path, hook, [1.0])
    assert hook.best.mean_return == 1.0 and weight_of(hook.best.path) == 1.0
    assert others <= {path.name for path in tmp_path.iterdir()}, "nothing outside is deleted"


@pytest.mark.parametrize(
    "damage",
    [
        lambda best: (best / "best.json").write_text('{"return": 5.0, "chec'),
        lambda best: (best / "best.json").write_text("[]"),
        lambda best: (best / "best.json").write_bytes(b"\xff\xfe\x00{"),
        lambda best: (best / "best.json").write_text('{"return": NaN, "checkpoint": "ckpt-1"}'),
        lambda best: (best / "best.json").write_text('{"return": 9.0, "checkpoint": ".."}'),
        lambda best: (
            (best / "ckpt-1.index").rename(best / "elsewhere")
            and (best / "ckpt-1.data-00000-of-00001").unlink()
        ),
    ],
)
def test_a_damaged_record_is_told_and_replaced(tmp_path, caplog, damage):
    hook = hooks.EvaluationHook(PayEnv(), EACH_STEP)
    played(tmp_path, hook, [5.0])
    damage(tmp_path / "best")
    played(tmp_path, hook, [1.0])
    assert "the next evaluation replaces it" in caplog.text
    assert hook.best.mean_return == 1.0 and weight_of(hook.best.path) == 1.0


def test_two_hooks_with_names_keep_two_best_checkpoints(tmp_path):
    run = Run(tmp_path)
    chosen = [hooks.EvaluationHook(PayEnv(), EACH_STEP, name=name) for name in ("easy", "hard")]
    run.drive(chosen, [Update(weight=3.0)])
    assert [hook.best.path for hook in chosen] == [
        f"{tmp_path}/best/easy/ckpt-1",
        f"{tmp_path}/best/hard/ckpt-1",
    ]


def test_an_unnamed_hook_leaves_the_best_of_a_named_one_alone(tmp_path):
    named = hooks.EvaluationHook(PayEnv(), EACH_STEP, name="hard")
    plain = hooks.EvaluationHook(PayEnv(), EACH_STEP)
    Run(tmp_path).drive([named, plain], [Update(weight=3.0), Update(weight=4.0)])
    assert weight_of(named.best.path) == weight_of(plain.best.path) == 4.0


def test_brackets_in_the_directory_are_no_pattern(tmp_path):
    directory = tmp_path / "runs[1]"
    hook = hooks.EvaluationHook(PayEnv(), EACH_STEP)
    played(directory, hook, [5.0])
    # tf.train.Checkpoint writes into such a directory, but reads none from it.
    copy = directory / "best" / "ckpt-1.data-00000-of-00001"
    assert copy.read_bytes() == (directory / "ckpt-1.data-00000-of-00001").read_bytes()


def test_files_of_others_in_the_directory_stay(tmp_path):
    hook = hooks.EvaluationHook(PayEnv(), EACH_STEP)
    played(tmp_path, hook, [5.0])
    (tmp_path / "best" / "notes.txt").write_text("mine")
    # What a process left that died while it copied.
    (tmp_path / "best" / "ckpt-9.data-00000-of-00001").write_text("half")
    played(tmp_path, hook, [6.0], start=1)
    assert sorted(path.name for path in (tmp_path / "best").iterdir()) == [
        "best.json",
        "checkpoint",
        "ckpt-2.data-00000-of-00001",
        "ckpt-2.index",
        "notes.txt",
    ]


def test_without_a_model_dir_nothing_is_kept():
    hook = hooks.EvaluationHook(PayEnv(), EACH_STEP)
    assert played(None, hook, [5.0]).evaluations and hook.best is None


def test_it_can_be_told_to_keep_nothing(tmp_path):
    hook = hooks.EvaluationHook(PayEnv(), EACH_STEP, keep_best=False)
    played(tmp_path, hook, [5.0])
    assert hook.best is None and list(tmp_path.iterdir()) == []


def test_a_missing_checkpoint_cannot_be_kept(tmp_path):
    with pytest.raises(FileNotFoundError, match="no files of a checkpoint .*ckpt-9"):
        hooks.BestCheckpoint(str(tmp_path / "best")).keep(str(tmp_path / "ckpt-9"), 1.0)


@pytest.mark.parametrize("env", [PayEnv, "CartPole-v1", graph_environments.CartPole()])
def test_what_keeps_no_episode_may_be_shared_with_the_training(env):
    hook = hooks.EvaluationHook(env, EACH_STEP)
    hook.begin(monitor.RunContext(environment=env))


def test_the_environment_trained_on_is_refused():
    env = PayEnv()
    with pytest.raises(ValueError, match="the environment that is trained on"):
        Run(environment=env).drive([hooks.EvaluationHook(env, EACH_STEP)], [])


def test_one_id_string_for_both_makes_two_environments():
    hooks.EvaluationHook("CartPole-v1", EACH_STEP).begin(Run(environment="CartPole-v1"))


@pytest.mark.parametrize("name", ["", "..", "a/b", "a\\b"])
def test_a_name_that_is_no_directory_is_an_error(name):
    with pytest.raises(ValueError, match="a name that can be a directory's; got"):
        hooks.EvaluationHook(PayEnv(), EACH_STEP, name=name)


def test_episodes_must_be_positive():
    with pytest.raises(ValueError, match=r"episodes=…\) takes a positive integer; got 0"):
        hooks.EvaluationHook(PayEnv(), EACH_STEP, episodes=0)
