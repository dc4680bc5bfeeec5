"""Resources of a Ray cluster, and whether a job's processes fit on its nodes together."""

import copy
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import ray

from affect.modalities import stages_of
from affect.pipeline.autoscaler import could_start, may_grow
from affect.settings.extraction import Pool
from affect.settings.run import Run
from affect.settings.training import Workers

WAIT_FOR_NODES_S = 6 * 3600
"""Seconds that a job may go without progress: spot nodes may be unavailable for hours."""
WORKERS_ADVICE = (
    "training reserves it all the time: lower --workers.num-workers, --workers.num-cpus or --workers.loader-cpus"
)
READING_CPUS = 0.1
"""CPUs that Ray Data reserves for reading rows."""
_SLACK = 1e-6
"""Tolerance of comparisons: Ray counts resources in ten thousandths."""


def device() -> str:
    """``cuda`` if Ray assigned a GPU to this actor, else ``cpu``; all GPUs are then hidden from its process.

    Ray leaves them visible, so that a library which takes the first GPU would share it uncounted.
    """
    if ray.get_gpu_ids():
        return "cuda"
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    return "cpu"


def labels_of(pool: Pool) -> dict[str, str]:
    """Node labels that a pool's actors require."""
    key, _, value = pool.node_label.partition("=")
    return {key: value} if key else {}


class Share(NamedTuple):
    """Resources that one process of a job reserves.

    Args:
        name: name of the process in messages, such as ``--face``.
        cpus: CPUs; fractions are allowed.
        gpus: GPUs: a fraction of one card, or whole cards.
        labels: node labels that it requires.
        memory: bytes.
    """

    name: str
    cpus: float
    gpus: float
    labels: Mapping[str, str] = {}
    memory: float = 0.0

    @property
    def num_cards(self) -> int:
        """Number of cards that it uses; a fraction of a card counts as one."""
        return math.ceil(self.gpus)


def share_of(name: str, pool: Pool) -> Share:
    """Resources of a pool's actor."""
    return Share(name, pool.num_cpus, pool.num_gpus, labels_of(pool))


@dataclass
class Node:
    """Free resources of a node.

    Args:
        id: Ray's id of the node.
        name: address of the node.
        labels: its labels.
        cpus: free CPUs.
        cards: free fraction of each GPU.
        memory: free bytes, without Ray's object store.
    """

    id: str
    name: str
    labels: Mapping[str, str]
    cpus: float
    cards: list[float]
    memory: float = float("inf")

    def fits(self, share: Share) -> bool:
        """Whether a process fits on the node."""
        allowed = share.labels.items() <= self.labels.items() and self.cpus + _SLACK >= share.cpus
        return allowed and self.memory >= share.memory and len(self._cards(share)) >= share.num_cards

    def take(self, share: Share) -> None:
        """Subtracts the resources of a process."""
        self.cpus -= share.cpus
        self.memory -= share.memory
        for card in self._cards(share)[: share.num_cards]:
            self.cards[card] -= min(1.0, share.gpus)

    def _cards(self, share: Share) -> list[int]:
        """Indices of the cards with enough free for the share, least free first."""
        part = min(1.0, share.gpus)
        return sorted((i for i, free in enumerate(self.cards) if free + _SLACK >= part), key=lambda i: self.cards[i])

    def __str__(self) -> str:
        """Address, CPUs and GPUs in words."""
        return f"{self.name} with {self.cpus:g} CPUs and {sum(self.cards):g} GPUs"


def nodes() -> list[Node]:
    """The present nodes with all their resources, free or not."""
    found = []
    for node in ray.nodes():
        if node["Alive"]:
            has = node["Resources"]
            cards = [1.0] * int(has.get("GPU", 0))
            address = node["NodeManagerAddress"]
            memory = has.get("memory", float("inf"))
            found.append(Node(node["NodeID"], address, node["Labels"], has.get("CPU", 0.0), cards, memory))
    return found


def _order(share: Share) -> tuple[bool, float, float]:
    """Sort key: processes with labels first, because they fit on few nodes, then the largest."""
    return not share.labels, -share.gpus, -share.cpus


def placed(shares: Sequence[Share], on: Sequence[Node]) -> Share | None:
    """Places processes on nodes: those with labels first, then the largest, each where the least remains free.

    Args:
        shares: processes that run at the same time.
        on: nodes; the resources of placed processes are subtracted.

    Returns:
        The first process that does not fit; None if all fit.
    """
    for share in sorted(shares, key=_order):
        fitting = [node for node in on if node.fits(share)]
        if not fitting:
            return share
        min(fitting, key=lambda node: (sum(node.cards) if share.gpus == 0 else 0.0, node.cpus)).take(share)
    return None


def check_room(shares: Sequence[Share], advice: str) -> None:
    """Checks that the processes of a job fit on the cluster's nodes together; otherwise they would wait for ever.

    If they do not fit on the present nodes, the autoscaler of a cluster that may grow is asked whether it has others.

    Args:
        shares: processes that run at the same time.
        advice: what the user can do if they do not fit.

    Raises:
        ValueError: they do not fit; names the process without room and the nearest node.
    """
    whole = nodes()
    left = copy.deepcopy(whole)
    share = placed(shares, left)
    if share is None:
        return
    if may_grow():
        if not could_start([(each.cpus, each.gpus, each.labels) for each in shares]):
            raise ValueError(f"{_words(shares)}: no kind of node that the autoscaler may add has room; {advice}")
        return
    if not any(share.labels.items() <= node.labels.items() for node in whole):
        label = ", ".join("=".join(pair) for pair in share.labels.items())
        raise ValueError(f"no node has the label {label} of {share.name}: it would wait for ever")
    alone = any(node.fits(share) for node in whole)
    nearest = max(left if alone else whole, key=lambda node: _nearness(node, share))
    others = f" beside the job's other processes ({_words(shares)})" if alone else ""
    raise ValueError(
        f"{share.name} asks for {share.cpus:g} CPUs and {share.gpus:g} GPUs, and no node has room for it{others}: the "
        f"nearest is {nearest}{' left' if alone else ''}; {advice}"
    )


def _nearness(node: Node, share: Share) -> tuple[bool, float]:
    """Sort key of nodes: the label matches, then the smallest ratio of what the node has to what is needed."""
    parts = [node.cpus / share.cpus] if share.cpus else []
    if share.gpus:
        parts.append(sum(node.cards) / share.gpus if share.gpus >= 1 else max(node.cards, default=0.0) / share.gpus)
    return share.labels.items() <= node.labels.items(), min([1.0, *parts])


def _words(shares: Sequence[Share]) -> str:
    """Processes in words, each kind once with its number."""
    counts = Counter((share.name, share.cpus, share.gpus) for share in shares)
    parts = (
        f"{count} x {name} {cpus:g} CPUs{f' {gpus:g} GPUs' if gpus else ''}"
        for (name, cpus, gpus), count in counts.items()
    )
    return ", ".join(parts)


def at_most(shares: Sequence[Share], most: int) -> int:
    """Number of copies of a group of processes that fit on the cluster.

    Args:
        shares: one group of processes.
        most: upper limit of the result.

    Returns:
        One or more: a group may wait for nodes. ``most`` if the cluster may grow: how far is not known.
    """
    if may_grow():
        return max(1, most)
    left, count = nodes(), 0
    while count < most and placed(shares, left) is None:
        count += 1
    return max(1, count)


def pool_sizes(pools: Mapping[str, Pool], num_rows: int) -> dict[str, int]:
    """Actors of pools at the same time: their first actors, then one more each by turns while a node and card has room.

    Args:
        pools: settings by name.
        num_rows: number of rows to process.

    Returns:
        Number by name; the first actors count even where they have no room, because they may wait for a node.
    """
    if may_grow():
        return {name: max(1, min(pool.max_actors, num_rows)) for name, pool in pools.items()}
    shares, left = [share_of(name, pool) for name, pool in pools.items()], nodes()
    sizes = {name: min(pool.min_actors, num_rows) for name, pool in pools.items()}
    first = [share for share in shares for _ in range(sizes[share.name])]
    growing = [] if placed([*first, Share("reading", READING_CPUS, 0.0)], left) else sorted(shares, key=_order)
    while growing:
        for share in list(growing):
            full = sizes[share.name] >= min(pools[share.name].max_actors, num_rows)
            if full or placed([share], left) is not None:
                growing.remove(share)
            else:
                sizes[share.name] += 1
    return {name: max(1, size) for name, size in sizes.items()}


def actors(pool: Pool, num_rows: int, memory: float = 0.0) -> int:
    """Most actors of a pool at the same time, limited by its settings, the cluster and the number of rows.

    Args:
        pool: settings of the pool.
        num_rows: number of rows to process.
        memory: bytes of an actor; 0: memory is no limit.
    """
    return at_most([share_of("", pool)._replace(memory=memory)], min(pool.max_actors, num_rows))


def shares_of(workers: Workers, *, read: bool) -> list[Share]:
    """Processes of a training that run at the same time.

    Args:
        workers: number and resources; with 0 workers the job's own process trains, which reserves nothing.
        read: whether a Ray Data task reads for them.
    """
    each = Share("--workers", workers.num_cpus, float(workers.use_gpu))
    reader = [Share("reading for --workers", workers.loader_cpus, 0.0)]
    return [each] * workers.num_workers + reader * read


def check_pools(run: Run, kinds: Iterable[str]) -> None:
    """Checks that the first actors of all stages and Ray Data's reading fit on the nodes together.

    Args:
        run: the run.
        kinds: kinds of features, a stage each.

    Raises:
        ValueError: they do not fit; names the stage without room and the nearest node.
    """
    pools = stages_of(run, kinds)
    shares = [share_of(f"--{kind}", pool) for kind, pool in pools.items() for _ in range(pool.min_actors)]
    largest = max(pools, key=lambda kind: (pools[kind].num_gpus, pools[kind].num_cpus))
    flags = f"--{largest}.num-cpus" + (f" and --{largest}.num-gpus" if pools[largest].num_gpus else "")
    check_room([*shares, Share("reading", READING_CPUS, 0.0)], f"all stages run at the same time: lower {flags}")
