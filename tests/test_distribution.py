"""Training on several replicas and workers: the numbers of one device, whatever the division. Each run has its process.

The quick tests have two replicas and two workers; all cases on more of both are slow: `make test-slow`, and as a table
`python -m benchmarks.distribution_matrix`.
"""

import json
import signal
import threading
import time

import numpy as np
import pytest
import tensorflow as tf

from benchmarks.distribution_matrix import FEATURES
from tests.distribution_processes import ALONE, BOTH, MIRRORED, WORKERS, Processes, differences
from tests.distribution_recipes import counting_text
from tests.forked_processes import ended, forked_workers, free_ports
from tfheads import distribute
from tfheads.distribute.clusters import Cluster, found_cluster, slurm_hosts, slurm_tasks
from tfheads.distribute.rendezvous import meet

ALL = [*FEATURES]
QUICK = ["plain", "recipe"]
ON_REPLICAS = ["plain", "averaged"]
MOST = {"scaled": 1e-4}  # float16


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The quick cases on one device, two replicas and two workers, all at once."""
    directory = tmp_path_factory.mktemp("distribution")
    started = {
        "one": Processes(ALONE, directory / "one", sorted({*QUICK, *ON_REPLICAS})),
        "replicas": Processes(MIRRORED[0], directory / "replicas", [*ON_REPLICAS, "outside"]),
        "workers": Processes(WORKERS[0], directory / "workers", [*QUICK, "dropped", "rows_of_workers"]),
    }
    codes = {name: processes.wait() for name, processes in started.items()}
    for name, found in codes.items():
        assert set(found) == {0}, started[name].log()
    return started


def check_same(processes: Processes, alone: Processes, case: str):
    expected = alone.found(case)[0]
    for found in processes.found(case):
        assert not differences(found, expected, MOST.get(case, 1e-5))


@pytest.mark.parametrize("case", ON_REPLICAS)
def test_two_replicas_give_the_numbers_of_one(runs, case):
    check_same(runs["replicas"], runs["one"], case)


@pytest.mark.parametrize("case", QUICK)
def test_two_workers_give_the_numbers_of_one(runs, case):
    check_same(runs["workers"], runs["one"], case)


def test_workers_draw_masks_of_their_own_and_stay_alike(runs):
    first, second = runs["workers"].found("dropped")
    assert np.abs(first["masked"] - second["masked"]).max() > 0.1
    assert not differences({**first, "masked": 0 * first["masked"]}, {**second, "masked": 0 * first["masked"]}, 0.0)


@pytest.mark.slow
def test_replicas_draw_masks_of_their_own(tmp_path):
    processes = Processes(MIRRORED[0], tmp_path, ["dropped"])
    assert processes.wait() == [0], processes.log()
    one, two = processes.found("dropped")[0]["masked"]
    assert np.abs(one - two).max() > 0.1


def test_what_is_made_outside_of_the_scope_is_refused(runs):
    optimizer, metric = runs["replicas"].found("outside")[0]["found"]
    assert optimizer == "my_optimizer must be made inside the scope of the model's strategy, it was made outside"
    assert metric.startswith("my_measure must be made inside the scope")


def test_workers_get_parts_that_are_disjoint_and_complete(runs):
    first, second = runs["workers"].found("rows_of_workers")
    assert sorted([*first["rows"], *second["rows"]]) == list(range(42))
    assert first["blocks_sizes"].tolist() == second["blocks_sizes"].tolist() == [4, 4, 4, 4, 4, 1] * 2
    epochs = [sorted([*first["blocks"][place], *second["blocks"][place]]) for place in (slice(21), slice(21, None))]
    assert epochs[0] == epochs[1] == list(range(42))
    assert first["blocks"][:21].tolist() != first["blocks"][21:].tolist()
    for start in range(0, 20, 4):  # sharded at the source, each step has the same rows, without the short last batch
        part = slice(start, start + 4)
        sharded = sorted([*first["shards"][part], *second["shards"][part]])
        assert sharded == sorted([*first["blocks"][part], *second["blocks"][part]])


def test_only_the_chief_writes_and_prints(runs):
    directory = runs["workers"].directory / "recipe"
    steps = [line.split(",")[0] for line in (directory / "log_history.jsonl").read_text().splitlines()]
    assert len(steps) == len((runs["one"].directory / "recipe" / "log_history.jsonl").read_text().splitlines())
    found = runs["workers"].found("recipe")[1]
    assert found["tracked_by_tensorboard"] == found["tracked_by_wandb"] == 1 and found["uploads"] == 2
    assert "The model is in" in runs["workers"].log(0) and "Global batch: 12 rows" in runs["workers"].log(0)
    for text in ("The model is in", "Global batch", "Strategy:", "The best model"):
        assert text not in runs["workers"].log(1)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """All cases on one device."""
    processes = Processes(ALONE, tmp_path_factory.mktemp("one"), ALL)
    assert processes.wait() == [0], processes.log()
    return processes


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*MIRRORED, *WORKERS, *BOTH], ids=lambda kind: kind[0])
def test_the_whole_matrix(kind, alone, tmp_path):
    processes = Processes(kind, tmp_path, ALL)
    assert set(processes.wait()) == {0}, processes.log()
    for case in ALL:
        check_same(processes, alone, case)


@pytest.mark.slow
def test_flags_of_a_recipe_give_its_results_on_other_devices(tmp_path):
    (tmp_path / "text").mkdir()
    text, found = str(counting_text(tmp_path / "text")), {}
    for strategy, replicas, workers in [("one_device", 1, 1), ("mirrored", 2, 1), ("multi_worker", 1, 2)]:
        options = (strategy, replicas, replicas * workers, text, str(tmp_path / strategy))
        started = forked_workers("tests.distribution_recipes.by_flags", tmp_path / strategy, workers, *options)
        assert set(ended(started)) == {0}, (tmp_path / strategy / "worker-0.log").read_text()
        found[strategy] = json.loads((tmp_path / strategy / "output" / "all_results.json").read_text())
    for results in found.values():
        for name in ("eval_loss", "perplexity", "train_loss"):
            np.testing.assert_allclose(results[name], found["one_device"][name], rtol=1e-5)


@pytest.mark.slow
def test_workers_that_make_different_models(tmp_path):
    processes = Processes(WORKERS[0], tmp_path, ["disagreeing"])
    assert processes.wait() == [1, 1]
    for index in range(2):
        assert "config must be the same on all workers: n_embd is 16 on worker 0, 32 on 1" in processes.log(index)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["killed", "raised"])
def test_a_worker_that_ends_ends_the_others(case, tmp_path):
    """What becomes of the run: test_restarts."""
    processes = Processes(WORKERS[0], tmp_path, [case])
    assert processes.wait(300) == [1, -signal.SIGKILL if case == "killed" else 1]
    assert "worker 1 of 2 has ended or cannot be reached, so this one ends too" in processes.log(0)


# Clusters, from what launchers say.


def tf_config(cluster='{"worker": ["a:1", "b:1"]}', task='{"type": "worker", "index": 1}') -> dict:
    return {"TF_CONFIG": f'{{"cluster": {cluster}, "task": {task}}}'}


SLURM = {"SLURM_PROCID": "2", "SLURM_STEP_NUM_TASKS": "3", "SLURM_STEP_NODELIST": "n[07,11]-x"}
JOBSET = {"JOBSET_NAME": "train", "REPLICATED_JOB_NAME": "hosts", "JOB_COMPLETION_INDEX": "1", "TFHEADS_WORKERS": "2"}
MPI_HOST = {"OMPI_COMM_WORLD_LOCAL_SIZE": "1", "OMPI_COMM_WORLD_LOCAL_RANK": "0"}
MPI = {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}


@pytest.mark.parametrize(
    ("environment", "cluster"),
    [
        ({}, None),
        (tf_config('{"worker": ["a:1"]}', '{"type": "worker", "index": 0}'), None),
        (tf_config(), Cluster(("a:1", "b:1"), 1, "TF_CONFIG")),
        (tf_config('{"chief": ["c:1"], "worker": ["a:1", "b:1"]}'), Cluster(("c:1", "a:1", "b:1"), 2, "TF_CONFIG")),
        (
            {**SLURM, "SLURM_STEP_TASKS_PER_NODE": "2,1", "TFHEADS_PORT": "9000"},
            Cluster(("n07-x:9000", "n07-x:9001", "n11-x:9000"), 2, "Slurm"),
        ),
        (JOBSET, Cluster(("train-hosts-0-0.train:12345", "train-hosts-0-1.train:12345"), 1, "Kubernetes JobSet")),
        (MPI, Cluster(("127.0.0.1:12345", "127.0.0.1:12346"), 1, "Open MPI")),
        (
            {
                **MPI,
                "OMPI_COMM_WORLD_LOCAL_SIZE": "1",
                "OMPI_COMM_WORLD_LOCAL_RANK": "0",
                "MASTER_ADDR": "h",
                "HOSTNAME": "i",
            },
            Cluster(("h:12345", "i:12345"), 1, "Open MPI"),
        ),
    ],
)
def test_clusters_of_launchers(environment, cluster):
    assert found_cluster(environment) == cluster


def test_lists_of_slurm():
    assert slurm_hosts("a[01-03,7],b,c2") == ["a01", "a02", "a03", "a7", "b", "c2"]
    assert slurm_tasks("2(x3),1", 4) == [2, 2, 2, 1]


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"TF_CONFIG": "{worker"}, "TF_CONFIG must be JSON, got '{worker'"),
        ({"TF_CONFIG": "[]"}, 'TF_CONFIG must have "cluster" with lists of addresses'),
        (tf_config('{"worker": "a:1"}'), """with lists of "host:port", got 'a:1' for 'worker'"""),
        (tf_config('{"worker": ["a:1", "b"]}'), """with lists of "host:port", got \\['b'\\] for 'worker'"""),
        (tf_config('{"worker": ["a:1", "a:1"]}'), "each address once, got 'a:1' twice"),
        (tf_config(task='{"type": "worker", "index": 2}'), "the index of a worker below 2, got 2"),
        (tf_config(task='{"type": "evaluator", "index": 0}'), 'a type of "chief" or "worker", got \'evaluator\''),
        (tf_config(task="null"), '"task" with "type" and "index", got None'),
        (tf_config('{"worker": ["a:1", "b:1"], "ps": ["c:1"]}'), "has parameter servers .* see tfheads.legacy"),
        ({**SLURM, "SLURM_STEP_TASKS_PER_NODE": "1,1"}, "must add up to SLURM_STEP_NUM_TASKS=3"),
        ({**SLURM, "SLURM_PROCID": "x"}, "SLURM_PROCID must be a whole number in the environment, got 'x'"),
        ({**JOBSET, "JOB_COMPLETION_INDEX": "2"}, "JOB_COMPLETION_INDEX must be below the number of workers 2, got 2"),
        ({**JOBSET, "TFHEADS_WORKERS": ""}, "TFHEADS_WORKERS must be a whole number in the environment, got ''"),
        ({**MPI, "OMPI_COMM_WORLD_LOCAL_SIZE": "1"}, "MASTER_ADDR must be the host of rank 0"),
    ],
)
def test_clusters_that_do_not_make_sense(environment, sentence):
    with pytest.raises(ValueError, match=sentence):
        found_cluster(environment)


# Workers that meet.


def together(clusters, facts, seconds=5.0) -> list:
    """What each of some workers gets from the meeting: a cluster or an error."""
    found = [None] * len(clusters)

    def run(place):
        try:
            found[place] = meet(clusters[place], facts[place], seconds)
        except (ValueError, OSError) as error:
            found[place] = error

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(clusters))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return found


def test_workers_meet_and_tell_their_addresses():
    first, second, third = (f"127.0.0.1:{port}" for port in free_ports(3))
    clusters = [
        Cluster((first, *others), index, "test")
        for index, others in enumerate([(None, None), (second, None), (None, third)])
    ]
    found = together(clusters, [{"keras": "3"}] * 3)
    assert [cluster.addresses for cluster in found] == [(first, second, third)] * 3


def test_workers_that_are_not_alike_or_not_there_are_told_so_in_bounded_time():
    addresses = tuple(f"127.0.0.1:{port}" for port in free_ports(2))
    clusters = [Cluster(addresses, index, "test") for index in range(2)]
    for error in together(clusters, [{"keras": "3.15"}, {"keras": "3.16"}]):
        assert str(error).endswith("keras is '3.15' on worker 0, '3.16' on 1")
    began = time.monotonic()
    assert "1 of 2 workers came in time, missing are: 1" in str(together(clusters[:1], [{}], 0.5)[0])
    assert "worker 1 got no answer from worker 0" in str(together(clusters[1:], [{}], 0.5)[0])
    assert time.monotonic() - began < 30
    twice = together([clusters[0], clusters[0]], [{}, {}], 0.5)
    assert any("must be free on this machine" in str(error) for error in twice)


# The strategies by name.


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("miror", {}, "strategy must be one of auto, .*, got 'miror', the nearest is 'mirrored'"),
        ("parameter_server", {}, "is not there in Keras 3: train tfheads.legacy.as_tf_keras"),
        ("multi_worker", {}, "needs two or more workers in TF_CONFIG"),
        ("tpu", {}, "needs the name of a TPU: give tpu, or set TPU_NAME"),
        ("one_device", {"replicas": 2}, "replicas must be 1 for the strategy 'one_device', got 2"),
    ],
)
def test_strategies_that_cannot_be(name, options, sentence, monkeypatch):
    for variable in ("TF_CONFIG", "TPU_NAME"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(ValueError, match=sentence):
        distribute.strategy(name, **options)


def test_a_tpu_is_resolved_by_its_name(monkeypatch):
    asked = []

    def resolver(tpu):
        asked.append(tpu)
        raise ValueError(f"no {tpu}")

    monkeypatch.setattr(tf.distribute.cluster_resolver, "TPUClusterResolver", resolver)
    monkeypatch.setenv("TPU_NAME", "of-the-environment")
    with pytest.raises(ValueError, match="there is no TPU of the name 'mine' here: no mine"):
        distribute.strategy("tpu", tpu="mine")
    with pytest.raises(ValueError, match="'of-the-environment'"):
        distribute.strategy("auto")
    assert asked == ["mine", "of-the-environment"]


def test_auto_takes_the_only_device_and_says_so(monkeypatch, capsys):
    for variable in ("TF_CONFIG", "TPU_NAME"):
        monkeypatch.delenv(variable, raising=False)
    assert distribute.strategy().num_replicas_in_sync == 1
    assert capsys.readouterr().out == "Strategy: one_device, 1 replica (no cluster in the environment, 1 CPU device)\n"
    monkeypatch.setenv(*next(iter(tf_config('{"worker": ["a:1"], "ps": ["b:1"]}').items())))
    with pytest.raises(ValueError, match="parameter_server"):
        distribute.strategy("auto")
