"""Whether what a job holds at once fits on a cluster's nodes, card by card."""

import copy
from typing import Any

import pytest

from affect.pipeline import autoscaler, cluster
from affect.pipeline.cluster import Node, Share, actors, at_most, check_pools, check_room, placed, pool_sizes
from affect.pipeline.workers import check_workers
from affect.settings.extraction import Face, Pool
from affect.settings.run import Run
from affect.settings.training import Workers

SMALL = Node("1", "10.0.0.1", {}, 4.0, [])
GPUS = Node("2", "10.0.0.2", {"kind": "gpu"}, 8.0, [1.0, 1.0])


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> list[Node]:
    """A node of four CPUs, and one of eight with two GPUs."""
    monkeypatch.setattr(cluster, "may_grow", lambda: False)
    monkeypatch.setattr(cluster, "nodes", lambda: copy.deepcopy([SMALL, GPUS]))
    return copy.deepcopy([SMALL, GPUS])


@pytest.mark.parametrize(
    ("shares", "fits"),
    [
        ([(4.0, 0.0), (8.0, 0.0)], True),
        ([(4.5, 0.0), (4.5, 0.0)], False),  # nine of twelve CPUs, but not on these nodes
        ([(12.0, 0.0)], False),
        ([(1.0, 0.6)] * 2, True),
        ([(1.0, 0.6)] * 3, False),  # 1.8 of 2 GPUs, and only one fits on each card
        ([(1.0, 0.4)] * 4, True),
        ([(1.0, 0.4)] * 2 + [(1.0, 0.7)] * 2, False),
        ([(1.0, 2.0)], True),
        ([(1.0, 2.0), (0.5, 0.1)], False),
        ([(1.0, 1.0), (0.5, 0.5), (0.5, 0.5)], True),
        ([(0.1, 0.1)] * 20, True),
        ([(0.1, 0.1)] * 21, False),
        ([(4.0, 0.0), (6.0, 1.0)], True),  # what needs no GPU leaves the node that has some alone
    ],
)
def test_what_is_held_at_once_is_placed_node_by_node_and_card_by_card(
    nodes: list[Node], shares: list[tuple[float, float]], fits: bool
):
    asked = [Share(f"part {i}", *share) for i, share in enumerate(shares)]
    assert (placed(asked, nodes) is None) == fits
    if not fits:
        with pytest.raises(
            ValueError, match=r"part \d+ asks for .* no node has room for it.*the nearest is 10\.0\.0\."
        ):
            check_room(asked, "lower something")


def test_an_actor_larger_than_any_node_is_named_with_the_node_that_comes_nearest(nodes: list[Node]):
    run = Run(name="a", systems=("face",), face=Face(num_cpus=10.0))
    with pytest.raises(
        ValueError, match=r"--face asks for 10 CPUs.*10\.0\.0\.2 with 8 CPUs and 2 GPUs; .*--face\.num-cpus"
    ):
        check_pools(run, ["face"])


def test_who_may_not_be_anywhere_is_placed_first():
    labelled = Share("behavior", 1.0, 1.0, {"kind": "vlm"})
    anywhere = Share("face", 1.0, 1.0)
    two = [Node("1", "a", {"kind": "vlm"}, 8.0, [1.0]), Node("2", "b", {}, 16.0, [1.0])]
    assert placed([anywhere, labelled], two) is None


def test_actors_are_no_more_than_memory_bears(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cluster, "may_grow", lambda: False)
    monkeypatch.setattr(cluster, "nodes", lambda: [Node("1", "a", {}, 16.0, [], 7.0)])
    assert actors(Pool(max_actors=1000), 100, 2.0) == 3
    assert actors(Pool(max_actors=1000), 100, 9.0) == 1  # one at least


def test_a_label_narrows_the_nodes_and_one_that_none_has_is_said(nodes: list[Node]):
    check_room([Share("a", 8.0, 0.0, {"kind": "gpu"})], "")
    with pytest.raises(ValueError, match=r"the nearest is 10\.0\.0\.2"):
        check_room([Share("a", 9.0, 0.0, {"kind": "gpu"})], "")
    with pytest.raises(ValueError, match=r"no node has the label kind=cpu of a: it would wait for ever"):
        check_room([Share("a", 1.0, 0.0, {"kind": "cpu"})], "")


@pytest.mark.parametrize(
    ("pool", "rows", "expected"),
    [
        (Pool(num_cpus=0.5, num_gpus=0.8, max_actors=16), 100, 2),  # one a card
        (Pool(num_cpus=0.5, num_gpus=0.25, max_actors=16), 100, 8),
        (Pool(num_cpus=3.0, max_actors=16), 100, 3),  # 1 + 2, not 12 / 3
        (Pool(num_cpus=1.0, max_actors=1000), 5, 5),
        (Pool(num_cpus=1.0, max_actors=1000), 100, 12),
        (Pool(num_cpus=100.0), 100, 1),  # it may wait for a node
        (Pool(num_cpus=1.0, max_actors=1000, node_label="kind=gpu"), 100, 8),
    ],
)
def test_a_pool_grows_to_what_the_nodes_have_room_for(nodes: list[Node], pool: Pool, rows: int, expected: int):
    assert actors(pool, rows) == expected


def test_trials_of_several_workers_fit_as_a_whole(nodes: list[Node]):
    assert at_most([Share("worker", 3.0, 1.0)] * 2, 10) == 1
    assert at_most([Share("worker", 2.0, 0.0)] * 2, 10) == 3


@pytest.mark.parametrize(
    ("gpus", "most", "expected"),
    [
        ((0.2, 0.8), 16, {"face": 2, "behavior": 2}),  # one of each on a card; alone, there would be ten of the face
        ((0.5, 0.5), 16, {"face": 2, "behavior": 2}),
        ((0.25, 0.25), 16, {"face": 4, "behavior": 4}),
        ((0.25, 0.25), 3, {"face": 3, "behavior": 3}),
        ((1.0, 1.0), 16, {"face": 1, "behavior": 1}),
        ((2.0, 1.0), 16, {"face": 1, "behavior": 1}),  # the second waits
        ((0.0, 1.0), 16, {"face": 16, "behavior": 2}),
    ],
)
def test_pools_grow_together_to_what_each_card_and_node_bears(
    nodes: list[Node], gpus: tuple[float, float], most: int, expected: dict[str, int]
):
    face, behavior = (Pool(num_cpus=0.5, num_gpus=share, max_actors=most) for share in gpus)
    assert pool_sizes({"face": face, "behavior": behavior}, 100) == expected
    assert max(pool_sizes({"face": face, "behavior": behavior}, 2).values()) <= 2


def test_first_actors_and_labels_come_before_growth(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cluster, "may_grow", lambda: False)
    monkeypatch.setattr(cluster, "nodes", lambda: [Node("1", "a", {}, 8.1, [])])
    assert pool_sizes({"face": Pool(min_actors=5, max_actors=9), "audio": Pool(max_actors=9)}, 99) == {
        "face": 6,
        "audio": 2,
    }
    two = [Node("1", "a", {"kind": "face"}, 8.0, [1.0]), Node("2", "b", {}, 8.0, [1.0])]
    monkeypatch.setattr(cluster, "nodes", lambda: copy.deepcopy(two))
    pools = {"behavior": Pool(num_gpus=1.0, max_actors=9), "face": Pool(num_gpus=0.5, node_label="kind=face")}
    assert pool_sizes(pools, 99) == {"behavior": 1, "face": 1}
    monkeypatch.setattr(cluster, "nodes", list)
    assert pool_sizes(pools, 99) == {"behavior": 1, "face": 1}  # they wait


def test_pools_of_a_cluster_that_may_grow_are_planned_at_their_largest(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cluster, "may_grow", lambda: True)
    pools = {"behavior": Pool(num_gpus=0.8, max_actors=32, node_label="kind=gpu"), "audio": Pool(max_actors=4)}
    assert pool_sizes(pools, 1000) == {"behavior": 32, "audio": 4} and pool_sizes(pools, 3)["behavior"] == 3
    assert actors(Pool(num_cpus=2.0, num_gpus=0.75, max_actors=100), 1000) == 100


def test_training_that_would_find_no_gpu_is_refused_before_anything_starts(nodes: list[Node]):
    with pytest.raises(ValueError, match=r"--workers\.use-gpu: the job's own process trains and sees no GPU"):
        check_workers(Workers(use_gpu=True))
    check_workers(Workers(use_gpu=True, num_workers=2))
    with pytest.raises(ValueError, match=r"--workers asks for 1 CPUs and 1 GPUs, and no node has room"):
        check_workers(Workers(use_gpu=True, num_workers=3))
    with pytest.raises(ValueError, match=r"--workers asks for 20 CPUs"):
        check_workers(Workers(num_cpus=20.0), tasks=True)
    check_workers(Workers(num_cpus=20.0))  # the job's own process reserves nothing


@pytest.mark.parametrize("infeasible", [False, True])
def test_an_autoscaler_is_asked_again_where_another_request_came_between(
    infeasible: bool, monkeypatch: pytest.MonkeyPatch
):
    """Ray Data withdraws its own request just after ours: an answer without ours says nothing about it."""
    requests: list[list[dict[str, float]]] = [[]]

    def status() -> Any:
        """The autoscaler has looked at each status; the first request is replaced after one look."""
        statuses.append(len(requests))
        reply = autoscaler._REPLY()
        state = reply.cluster_resource_state
        state.cluster_resource_state_version = len(statuses)
        replaced = len(requests) == 2 and statuses.count(2) > 1
        for bundle in [] if replaced else requests[-1]:
            asked = state.cluster_resource_constraints.add().resource_requests.add(count=1)
            asked.request.resources_bundle.update(bundle)
        reply.autoscaling_state.last_seen_cluster_resource_state_version = len(statuses)
        if infeasible and not replaced:
            constraints = reply.autoscaling_state.infeasible_cluster_resource_constraints
            constraints.extend(state.cluster_resource_constraints)
        return reply

    statuses: list[int] = []
    monkeypatch.setattr(autoscaler, "_status", status)
    monkeypatch.setattr(autoscaler, "request_resources", lambda bundles, **_: requests.append(bundles))
    assert autoscaler.could_start([(2.0, 1.0, {})]) != infeasible
    assert [len(bundles) for bundles in requests] == [0, 1, 1, 0]
