"""What an engine is asked for: options without a meaning, how cores and GPUs are shared, where a cluster is."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import datapruner as dp
from datapruner.engines.base import make_engine
from datapruner.engines.local import Local, environment
from datapruner.engines.ray import Ray, check_reached, shared_out
from datapruner.errors import DataPrunerError
from tests.conftest import run_command

ROOT = Path(__file__).resolve().parents[2]


def test_objects_are_refused(source, tiny_llama, tmp_path):
    with pytest.raises(DataPrunerError, match="'source' was given as an object"):
        dp.prune([{"text": "a"}] * 30, scorer="length", keep=3, workers=2, progress=False)
    from datapruner.models import load_causal_lm

    with pytest.raises(DataPrunerError, match="'model' was given as an object"):
        dp.score(str(source), scorers="ifd", model=load_causal_lm(str(tiny_llama)), workers=2, progress=False)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"engine": "local", "num_gpus": 1.0}, "num_gpus= is for engine='ray', and this run has engine='local'"),
        ({"engine": "local", "ray_address": "a:1"}, "ray_address= is for engine='ray'"),
        ({"engine": "rai"}, "no engine 'rai'. Did you mean 'ray'"),
        ({"engine": "local", "workers": 0}, "workers= is a whole number from 1 to 1,000, not 0"),
        ({"engine": "local", "workers": 1_000_000}, "workers= is a whole number from 1 to 1,000, not 1,000,000"),
        ({"engine": "local", "workers": "2"}, "valid integer"),
        ({"engine": "ray", "num_gpus": -1.0}, "num_gpus= is a number of at least 0"),
        ({"engine": Local(2), "workers": 3}, "workers= is for an engine that is named"),
        ({"engine": 7}, "an Engine object, not a int"),
    ],
)  # fmt: skip
def test_options_without_a_meaning_are_refused(given, said):
    with pytest.raises(DataPrunerError) as caught:
        make_engine(given["engine"], **{name: given[name] for name in given if name != "engine"})
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("nodes", "workers", "gpus", "shared"),
    [
        ([{"CPU": 8.0}], 2, None, (2, 4, 0)),
        ([{"CPU": 8.0}], None, None, (1, 8, 0)),
        ([{"CPU": 64.0, "GPU": 8.0}, {"CPU": 64.0, "GPU": 8.0}], None, None, (16, 8, 1)),
        ([{"CPU": 16.0, "GPU": 4.0}], None, 0.5, (8, 2, 0.5)),
        ([{"CPU": 16.0, "GPU": 4.0}], None, 0.0, (1, 16, 0)),
        ([{"CPU": 5.0}, {"CPU": 5.0}], 3, None, (3, 2, 0)),
        ([{"CPU": 2.0}], 4, None, (4, 0.5, 0)),
        ([{"CPU": 4.0}, {}], None, None, (2, 2, 0)),
    ],
)
def test_a_cluster_is_shared_out(nodes, workers, gpus, shared):
    count, cores, each = shared_out(nodes, workers, gpus)
    assert (count, cores, each) == shared
    if cores >= 1:  # all of them find room
        assert sum(int(node.get("CPU", 0) // cores) for node in nodes) >= count


def test_more_gpus_than_a_machine_has_are_refused():
    with pytest.raises(DataPrunerError, match="no machine of the cluster has 2 GPUs"):
        shared_out([{"CPU": 8.0, "GPU": 1.0}] * 2, 2, 2.0)


def test_workers_share_cores_and_gpus(monkeypatch):
    from datapruner.engines import local

    monkeypatch.setattr(local.os, "sched_getaffinity", lambda _: range(8), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("MKL_NUM_THREADS", "2")
    monkeypatch.setattr(local, "visible_gpus", lambda: ["5", "7"])
    made = [environment(number, 2, None) for number in range(3)]
    assert [one["CUDA_VISIBLE_DEVICES"] for one in made] == ["5", "7", "5"]
    assert {one["OMP_NUM_THREADS"] for one in made} == {"4"}
    assert {one["MKL_NUM_THREADS"] for one in made} == {"2"}
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert "CUDA_VISIBLE_DEVICES" not in environment(0, 2, "cpu")
    assert "CUDA_VISIBLE_DEVICES" not in environment(0, 2, "cuda:1")


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1"])
def test_an_address_where_nobody_answers_is_refused_at_once(address):
    with pytest.raises(DataPrunerError, match="no Ray cluster answers at"):
        check_reached(address)


@pytest.fixture
def dead_cluster(tmp_path, monkeypatch):
    """What a cluster that was started on this machine leaves once it was killed: the file with its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray/ray_current_cluster").write_text(f"127.0.0.1:{port}\n")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return port


def test_a_dead_cluster_of_this_machine_is_refused_at_once_where_it_is_asked_for(dead_cluster):
    with pytest.raises(
        DataPrunerError, match=rf"answers at 127.0.0.1:{dead_cluster}, which .*current_cluster names"
    ):
        check_reached("auto")


@pytest.mark.parametrize(
    ("given", "environ", "joined"), [(None, None, "local"), (None, "h:1", "h:1"), ("g:2", "h:1", "g:2")]
)
def test_a_cluster_of_its_own_is_started_where_none_was_named(
    dead_cluster, monkeypatch, given, environ, joined
):
    ray = pytest.importorskip("ray")
    asked = []

    def init(address=None, **_):
        asked.append(address)
        raise ConnectionError("and so on")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr("datapruner.engines.ray.check_reached", asked.append)
    if environ is not None:
        monkeypatch.setenv("RAY_ADDRESS", environ)
    with pytest.raises(DataPrunerError, match="Ray cannot be reached: and so on"):
        Ray(ray_address=given).open("cache")
    assert asked == [joined, joined]


JOIN = """
import sys
from datapruner.engines.ray import Ray
from datapruner.errors import DataPrunerError
try:
    Ray(ray_address=sys.argv[1]).open("cache")
except DataPrunerError as error:
    print(error)
"""


def joining(address: str, home: Path, **environ: str) -> str:
    """What somebody is told who joins a cluster with another token, or none."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    made = subprocess.run(
        [sys.executable, "-c", JOIN, address],
        env={**own, "HOME": str(home), "PYTHONPATH": str(ROOT), **environ},
        capture_output=True,
        text=True,
        check=True,
    )
    return made.stdout


def test_a_token_that_is_missing_is_told(tmp_path):
    pytest.importorskip("ray")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        said = joining(address, tmp_path, RAY_AUTH_MODE="token")
    assert said.startswith(
        f"the Ray cluster at {address} takes a token, and the one given here is missing or wrong"
    )


@pytest.mark.slow
def test_a_token_that_is_wrong_is_told(tmp_path, short_folder):
    pytest.importorskip("ray")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    own = {
        **os.environ,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "a" * 32,
        "RAY_TMPDIR": str(short_folder),
    }
    line = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
        *("--node-ip-address", "127.0.0.1", "--port", str(port)),
        *("--num-cpus", "1", "--include-dashboard", "false", "--disable-usage-stats"),
    ]
    with subprocess.Popen(line, env=own, stdout=subprocess.PIPE, text=True) as head:
        try:
            for text in head.stdout:
                if "Ray runtime started" in text:
                    break
            address = f"127.0.0.1:{port}"
            said = joining(address, tmp_path, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="b" * 32)
            assert f"the Ray cluster at {address} takes a token" in said
        finally:
            head.terminate()


@pytest.fixture
def short_folder():
    """Names of sockets have a limit."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="r") as name:
        yield Path(name)


@pytest.mark.parametrize("verb", ["prune", "score", "clean", "compare", "damage", "run"])
def test_every_verb_that_measures_takes_an_engine(verb, source, tmp_path, monkeypatch, capfd):
    if verb == "run":
        source = tmp_path / "recipe.yaml"
        source.write_text("source: rows.jsonl\nscorers:\n- name: length\nkeep: 0.5\n")
    ran = run_command(
        monkeypatch, capfd, verb, source, "-o", tmp_path / "out", "--engine", "ray", "--num-gpus", -1
    )
    assert ran.code == 2
    assert "--num-gpus is a number of at least 0, not -1" in ran.err
