"""What a Ray cluster has and may grow to, and whether what a job holds at once fits on its nodes."""

import copy
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import ray
from ray._private.state import state

from affect.settings.extraction import Pool
from affect.settings.run import Run
from affect.settings.training import Workers

WAIT_FOR_NODES_S = 6 * 3600
"""How long a job may go without any progress: spot nodes may not be had for hours."""
WORKERS_ADVICE = "it is held all the time: lower --workers.num-workers, --workers.num-cpus or --workers.loader-cpus"
_SLACK = 1e-6
"""Ray counts in ten thousandths: shares that differ by less are the same."""


def may_grow() -> bool:
    """Whether an autoscaler may add nodes."""
    return bool(state.get_max_resources_from_cluster_config())


def room() -> dict[str, float]:
    """CPUs, GPUs and other resources of all nodes that are there, or that an autoscaler may add; the larger counts.

    A cluster whose worker groups start at zero has nothing yet, and is no reason to refuse a job.

    Source: as Ray Train asks (``ray.train.v2._internal.execution.worker_group``); Ray has no public way.
    """
    there = ray.cluster_resources()
    possible = state.get_max_resources_from_cluster_config() or {}
    return {name: max(there.get(name, 0.0), float(possible.get(name, 0))) for name in {*there, *possible}}


def device() -> str:
    """``cuda`` if Ray gave this actor or task a GPU, else ``cpu``: Ray hides no GPU from those that asked for none."""
    return "cuda" if ray.get_gpu_ids() else "cpu"


def labels_of(pool: Pool) -> dict[str, str]:
    """What Ray asks of the nodes that a pool's actors are placed on."""
    key, _, value = pool.node_label.partition("=")
    return {key: value} if key else {}


class Share(NamedTuple):
    """What one process of a job holds.

    Args:
        name: what is said of it, such as ``an actor of --face``.
        cpus: CPUs, fractions are allowed.
        gpus: GPUs: a part of one card, or whole cards.
        labels: of the nodes that it may be on.
        memory: bytes.
    """

    name: str
    cpus: float
    gpus: float
    labels: Mapping[str, str] = {}
    memory: float = 0.0

    @property
    def num_cards(self) -> int:
        """Cards that it is on: one for a part of one, none without GPUs."""
        return math.ceil(self.gpus)


def share_of(name: str, pool: Pool) -> Share:
    """What an actor of a pool holds."""
    return Share(name, pool.num_cpus, pool.num_gpus, labels_of(pool))


@dataclass
class Node:
    """What is free on a node.

    Args:
        id: Ray's own name of it.
        name: its address.
        labels: its labels.
        cpus: CPUs.
        cards: the free part of each GPU.
        memory: bytes, as Ray counts them: without its object store.
    """

    id: str
    name: str
    labels: Mapping[str, str]
    cpus: float
    cards: list[float]
    memory: float = float("inf")

    def fits(self, share: Share) -> bool:
        """Whether there is room for one."""
        here = share.labels.items() <= self.labels.items() and self.cpus + _SLACK >= share.cpus
        return here and self.memory >= share.memory and len(self._cards(share)) >= share.num_cards

    def take(self, share: Share) -> None:
        """Give one its room."""
        self.cpus -= share.cpus
        self.memory -= share.memory
        for card in self._cards(share)[: share.num_cards]:
            self.cards[card] -= min(1.0, share.gpus)

    def _cards(self, share: Share) -> list[int]:
        """Cards with room for a part of one, or for whole ones; the fullest first."""
        part = min(1.0, share.gpus)
        return sorted((i for i, free in enumerate(self.cards) if free + _SLACK >= part), key=lambda i: self.cards[i])

    def __str__(self) -> str:
        """In words."""
        return f"{self.name} with {self.cpus:g} CPUs and {sum(self.cards):g} GPUs"


def nodes() -> list[Node]:
    """The nodes that are there, with all that they have, whoever holds it now."""
    found = []
    for node in ray.nodes():
        if node["Alive"]:
            has = node["Resources"]
            cards = [1.0] * int(has.get("GPU", 0))
            address = node["NodeManagerAddress"]
            memory = has.get("memory", float("inf"))
            found.append(Node(node["NodeID"], address, node["Labels"], has.get("CPU", 0.0), cards, memory))
    return found


def placed(shares: Sequence[Share], on: Sequence[Node]) -> Share | None:
    """Give each its room: those that may not be anywhere first, then the largest, each where it leaves the least.

    Args:
        shares: what is held at once.
        on: nodes, of which what is taken is subtracted.

    Returns:
        The first that there is no room for, None if all have theirs.
    """
    for share in sorted(shares, key=lambda share: (not share.labels, -share.gpus, -share.cpus)):
        fitting = [node for node in on if node.fits(share)]
        if not fitting:
            return share
        min(fitting, key=lambda node: (sum(node.cards) if share.gpus == 0 else 0.0, node.cpus)).take(share)
    return None


def check_room(shares: Sequence[Share], advice: str) -> None:
    """See that what a job holds at once fits on the cluster's nodes: what does not would wait for ever.

    A cluster that may grow says how much it may have, and not in what nodes: there totals are compared.

    Args:
        shares: what is held at once.
        advice: what to do where it does not fit.

    Raises:
        ValueError: it does not; names what has no room and the node that comes nearest.
    """
    if may_grow():
        there = room()
        for resource, asked in (("CPU", sum(s.cpus for s in shares)), ("GPU", sum(s.gpus for s in shares))):
            if asked > there.get(resource, 0.0) + _SLACK:
                raise ValueError(
                    f"{_asked(shares)}: {asked:g} {resource}s, and the cluster may grow to "
                    f"{there.get(resource, 0.0):g}; {advice}"
                )
        return
    whole = nodes()
    left = copy.deepcopy(whole)
    share = placed(shares, left)
    if share is None:
        return
    if not any(share.labels.items() <= node.labels.items() for node in whole):
        label = ", ".join("=".join(pair) for pair in share.labels.items())
        raise ValueError(f"no node has the label {label} of {share.name}: it would wait for ever")
    alone = any(node.fits(share) for node in whole)
    nearest = max(left if alone else whole, key=lambda node: _nearness(node, share))
    held = f" beside all else that the job holds at once ({_asked(shares)})" if alone else ""
    raise ValueError(
        f"{share.name} asks for {share.cpus:g} CPUs and {share.gpus:g} GPUs, and no node has room for it{held}: the "
        f"nearest is {nearest}{' left' if alone else ''}; {advice}"
    )


def _nearness(node: Node, share: Share) -> tuple[bool, float]:
    """How near a node comes: the right label, then the smallest of the parts that it has of what is asked."""
    parts = [node.cpus / share.cpus] if share.cpus else []
    if share.gpus:
        parts.append(sum(node.cards) / share.gpus if share.gpus >= 1 else max(node.cards, default=0.0) / share.gpus)
    return share.labels.items() <= node.labels.items(), min([1.0, *parts])


def _asked(shares: Sequence[Share]) -> str:
    """Shares in words, each kind once with its number."""
    counts = Counter((share.name, share.cpus, share.gpus) for share in shares)
    parts = (
        f"{count} x {name} {cpus:g} CPUs{f' {gpus:g} GPUs' if gpus else ''}"
        for (name, cpus, gpus), count in counts.items()
    )
    return ", ".join(parts)


def at_most(shares: Sequence[Share], most: int) -> int:
    """How often the cluster has room for some shares, or may grow to; at least once, so that they may wait for nodes.

    Args:
        shares: what is held together.
        most: how often they are wanted.
    """
    if may_grow():
        there = room()
        asked = {"CPU": sum(share.cpus for share in shares), "GPU": sum(share.gpus for share in shares)}
        asked |= {"memory": sum(share.memory for share in shares)} if "memory" in there else {}
        rooms = [int(there.get(name, 0.0) / number + _SLACK) for name, number in asked.items() if number]
        return max(1, min([most, *rooms]))
    left, count = nodes(), 0
    while count < most and placed(shares, left) is None:
        count += 1
    return max(1, count)


def actors(pool: Pool, num_rows: int, memory: float = 0.0) -> int:
    """Actors that a pool may have at once: what it grows to, where the cluster has room and there is work.

    Args:
        pool: its settings.
        num_rows: rows that there are to do.
        memory: bytes that an actor takes, 0 if they need not be counted.
    """
    return at_most([share_of("", pool)._replace(memory=memory)], min(pool.max_actors, num_rows))


def shares_of(workers: Workers, *, read: bool) -> list[Share]:
    """What a training's processes hold of the cluster at once.

    Args:
        workers: how many there are; without any the job's own process trains, which holds nothing.
        read: whether a task of Ray Data reads for them.
    """
    each = Share("--workers", workers.num_cpus, float(workers.use_gpu))
    reader = [Share("reading for --workers", workers.loader_cpus, 0.0)]
    return [each] * workers.num_workers + reader * read


READING_CPUS = 0.1
"""CPUs that Ray Data keeps for reading rows."""


def check_pools(run: Run, kinds: Iterable[str]) -> None:
    """Check that the actors that all stages start with fit on the nodes at once and leave something for reading.

    Raises:
        ValueError: they do not; names the stage that has no room and the node that comes nearest.
    """
    pools: dict[str, Pool] = {kind: getattr(run, kind) for kind in kinds}
    shares = [share_of(f"--{kind}", pool) for kind, pool in pools.items() for _ in range(pool.min_actors)]
    largest = max(pools, key=lambda kind: (pools[kind].num_gpus, pools[kind].num_cpus))
    flags = f"--{largest}.num-cpus" + (f" and --{largest}.num-gpus" if pools[largest].num_gpus else "")
    check_room([*shares, Share("reading", READING_CPUS, 0.0)], f"stages hold it all the time: lower {flags}")
