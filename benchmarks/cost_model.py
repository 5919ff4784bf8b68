"""What a meta-step costs, as functions of its sizes: arithmetic, memory, communication, time. See docs/scaling.md.

The sizes are N tasks, R replicas, K updates per meta-step (meta-gradients), T rollout steps, B workers and H, the width
of the objective's recurrent net. Agents are tables, whose own arithmetic is small beside the net's. Nothing here is
measured; `benchmarks/scaling.py` holds it against the programs themselves.
"""

import math
from dataclasses import dataclass

FLOAT = 4  # bytes


@dataclass(frozen=True)
class Net:
    """LPG's network: F features, H units, m predictions, an embedding of E units."""

    width: int = 256
    num_features: int = 8
    num_predictions: int = 8
    embedding_width: int = 16

    @property
    def recurrent_products(self) -> int:
        """Multiply-adds of gates and output for one environment step of one worker."""
        return 3 * self.width * (self.width + self.num_features) + self.width * (1 + self.num_predictions)

    @property
    def embedding_products(self) -> int:
        """Multiply-adds of e(y(s)) and e(y(s'))."""
        return 2 * self.embedding_width * (self.num_predictions + 1)

    @property
    def num_params(self) -> int:
        """P, meta-parameters."""
        gru = 3 * self.width * (self.width + self.num_features) + 4 * self.width
        out = (self.width + 1) * (1 + self.num_predictions)
        embedding = self.embedding_width * (self.num_predictions + 2) + 1
        return gru + out + embedding

    def thin_products(self, rank: int) -> int:
        """Multiply-adds that low-rank perturbations add: x a and (x a) b^T for each perturbed matrix."""
        outputs = 1 + self.num_predictions
        shapes = [(self.width, 3 * self.width), (self.num_features, 3 * self.width), (self.width, outputs)]
        shapes += [(self.num_predictions, self.embedding_width)] * 2  # e(y) of both states
        return sum(rank * (a + b) for a, b in shapes if min(a, b) > rank)

    @property
    def elementwise(self) -> int:
        """Additions, multiplications and comparisons of the gates, counted in `objectives/recurrent.py`: 19 a unit."""
        return 19 * self.width


@dataclass(frozen=True)
class Workload:
    """A meta-step.

    Attributes:
        net: the objective.
        num_tasks: N.
        replicas: R, 2 for evolution, 1 for meta-gradients.
        updates: agent updates of a life in a meta-step: its mean lifetime, or K.
        longest: agent updates of the longest life in a meta-step.
        num_steps: T.
        num_workers: B.
        rank: of the perturbations; 0 for full rank.
        is_gradient: whether the objective learns by meta-gradients.
        remat: whether the forward pass is done again in the backward pass.
    """

    net: Net = Net()
    num_tasks: int = 512
    replicas: int = 2
    updates: float = 74.6
    longest: int = 250
    num_steps: int = 20
    num_workers: int = 64
    rank: int = 0
    is_gradient: bool = False
    remat: bool = False

    @property
    def num_lives(self) -> int:
        """M = N R."""
        return self.num_tasks * self.replicas


def update_flops(work: Workload) -> float:
    """Of the matrix products of one agent update: 2 T B products; with its derivative, three times the recurrent part.

    Backward, each product forward becomes two: one for the weight and one for what came in. The embedding's first layer
    is given constants, so its backward pass has one.
    """
    net, rows = work.net, work.num_steps * work.num_workers
    if not work.is_gradient:
        return 2.0 * rows * (net.recurrent_products + net.embedding_products + net.thin_products(work.rank))
    forward = net.recurrent_products + net.embedding_products
    embedding = 2 * (net.embedding_width * net.num_predictions + 2 * net.embedding_width)
    backward = 2 * net.recurrent_products + embedding
    return 2.0 * rows * (forward + backward + (forward if work.remat else 0))


def step_flops(work: Workload) -> float:
    """Of one meta-step: all updates of all lives, and the estimate of the gradient (2 M P) under evolution."""
    lives = work.num_lives * work.updates * update_flops(work)
    if work.is_gradient:
        return lives
    estimate = 2.0 * work.num_lives * (work.net.num_params if not work.rank else thin_params(work.net, work.rank))
    return lives + estimate


def thin_params(net: Net, rank: int) -> int:
    """Numbers that one low-rank perturbation consists of."""
    outputs, width = 1 + net.num_predictions, net.width
    matrices = [(width, 3 * width), (net.num_features, 3 * width), (width, outputs)]
    matrices += [(net.num_predictions, net.embedding_width), (net.embedding_width, 1)]
    total = sum(rank * (a + b) + 1 if min(a, b) > rank else a * b for a, b in matrices)
    return total + 4 * width + outputs + net.embedding_width + 1


def population_bytes(work: Workload, *, num_devices: int = 1, copies: int = 3) -> float:
    """Of the candidates' meta-parameters on one device: noise, candidates and the share that is being lived."""
    if work.is_gradient:
        return copies * FLOAT * work.net.num_params
    each = work.net.num_params if not work.rank else thin_params(work.net, work.rank)
    return FLOAT * each * work.num_lives * (copies - 1 + 1 / num_devices)


def weight_bytes(work: Workload, slots: int) -> float:
    """Read from memory in one update of `slots` lives side by side, where weights do not stay in a cache.

    Each of T steps of the recurrent net reads every candidate's weights; a shared base is read once for all.
    """
    if work.rank:
        return FLOAT * work.num_steps * (work.net.num_params + slots * thin_params(work.net, work.rank))
    shared = 1 if work.is_gradient else slots
    return FLOAT * work.num_steps * work.net.num_params * shared


@dataclass(frozen=True)
class Machine:
    """An accelerator, by its data sheet, and what of it is assumed to be achieved.

    Attributes:
        name: what it is called.
        peak: FLOP/s of matrix products as JAX does them by default.
        achieved: share of the peak that batched products of these sizes reach.
        bandwidth: bytes/s of its memory.
        link: bytes/s from one device to others.
        latency: seconds that a small kernel takes at least.
        memory: bytes.
    """

    name: str
    peak: float
    achieved: float
    bandwidth: float
    link: float
    latency: float
    memory: float


KERNELS_A_STEP = 16  # of T: about 10 of the environment and agent, 6 of the recurrent net
KERNELS_AN_UPDATE = 60  # of the loss, its gradient, the optimizer and the bookkeeping of slots


def iterations(work: Workload, num_devices: int, slots: int) -> float:
    """Updates that the busiest device does in turn, `slots` lives at a time; never fewer than the longest life has."""
    lives = -(-work.num_lives // num_devices)
    return max(float(work.longest), lives * work.updates / min(slots, lives))


@dataclass(frozen=True)
class Prediction:
    """Seconds of a meta-step by part, and what bounds it."""

    seconds: float
    latency: float
    compute: float
    memory: float
    collective: float
    updates_per_second: float
    gib_per_device: float

    @property
    def bound(self) -> str:
        """The largest part."""
        parts = {"latency": self.latency, "compute": self.compute, "memory": self.memory, "link": self.collective}
        return max(parts, key=lambda name: parts[name])


def predict(work: Workload, machine: Machine, num_devices: int, collective_bytes: float) -> Prediction:
    """Time of a meta-step: I T k tau + max(FLOPs / (D peak share), bytes / (D bandwidth)) + communication.

    As many lives run side by side as let the longest and the sum of all end together (`population.num_slots`).
    """
    lives = -(-work.num_lives // num_devices)
    slots = math.ceil(lives * work.updates / work.longest)
    count = iterations(work, num_devices, slots)
    latency = count * (work.num_steps * KERNELS_A_STEP + KERNELS_AN_UPDATE) * machine.latency
    if work.is_gradient:
        latency *= 3  # forward, and twice as much backward
    share = count * slots  # updates of one device, those of slots that idle included
    compute = share * update_flops(work) / (machine.peak * machine.achieved)
    shared_reads = work.rank > 0 or work.is_gradient
    turns = count if shared_reads else share
    memory = turns * weight_bytes(work, slots if shared_reads else 1) / machine.bandwidth
    collective = collective_bytes / machine.link if num_devices > 1 else 0.0
    seconds = latency + max(compute, memory) + collective
    updates = work.num_lives * work.updates / seconds
    gib = population_bytes(work, num_devices=num_devices) / 2**30
    return Prediction(seconds, latency, compute, memory, collective, updates, gib)
