"""Coverage of 95 % intervals of the CCC: how often they hold the CCC of the population that videos are drawn from."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from affect import concordance

NUM_VIDEOS = (3, 5, 10, 23, 40, 73)
REPLICATES, CHUNK, RESAMPLES = 2000, 100, 1000
POPULATION = 2_000_000
"""Number of videos that represent the population: their CCC is known to .001."""


@dataclass(frozen=True)
class Videos:
    """Distribution over videos of labels and predictions of two equally good systems; valence and arousal alike.

    In video v labels have mean ``b s_v`` and standard deviation ``w s_v``, predictions are ``a_v + g_v x + e``.

    Args:
        name: of the population.
        between: standard deviation of the videos' mean labels, b.
        within: median of the labels' standard deviation within a video, w.
        within_spread: standard deviation of its logarithm.
        offset: standard deviation of a_v; half of its variance is common to both systems, here and below.
        gain: mean of g_v.
        gain_spread: its standard deviation.
        noise: median over videos of the standard deviation of e.
        noise_spread: standard deviation of its logarithm.
        lengths: standard deviation of the logarithm of the length; 1: one video of 400 exceeds ten mean lengths.
        freedom: degrees of freedom of the t distribution of means, offsets and gains; 0: normal.
        expressive: share of videos with s_v = 2, the others have .3; 0: all have 1.
        harder: exponent of the length by which offsets and noise grow.
    """

    name: str
    between: float = 0.3
    within: float = 0.2
    within_spread: float = 0.5
    offset: float = 0.2
    gain: float = 0.7
    gain_spread: float = 0.3
    noise: float = 0.2
    noise_spread: float = 0.5
    lengths: float = 1.0
    freedom: float = 0.0
    expressive: float = 0.0
    harder: float = 0.0


WEAK = {"between": 0.15, "within": 0.3, "within_spread": 0.2, "offset": 0.05, "gain_spread": 0.1, "noise_spread": 0.2}
POPULATIONS = (
    Videos("weak effects, equal lengths", **WEAK, lengths=0),
    Videos("weak effects", **WEAK),
    Videos("strong effects, equal lengths", lengths=0),
    Videos("strong effects"),
    Videos("heavy tails", within_spread=0.7, noise_spread=0.7, freedom=4),
    Videos("high CCC", 0.25, 0.3, 0.3, offset=0.04, gain=0.95, gain_spread=0.05, noise=0.08),
    Videos("low CCC", 0.25, gain=0.25, noise=0.15),
    Videos("long videos are harder", harder=0.2),
    Videos("labels differ between videos", 0.35, 0.1, offset=0.15, noise=0.1),
    Videos("few expressive videos", offset=0.15, gain_spread=0.2, expressive=0.25),
)


def intervals() -> None:
    """Coverage and mean length of the percentile bootstrap and of :func:`affect.concordance.jackknife`."""
    print(f"coverage ± its standard error over {REPLICATES} draws (mean length), percentile bootstrap | jackknife t")
    print(
        f"{'population':30} {'CCC':>5} {'videos':>6}"
        + "".join(f"  {name:^43}" for name in ("valence", "mean", "no difference"))
    )
    for kind in POPULATIONS:
        truth = population(kind, np.random.default_rng(0))
        for num in NUM_VIDEOS:
            old, new = np.concatenate([_coverage(kind, num, truth, i) for i in range(REPLICATES // CHUNK)], axis=2)
            cells = (f"{_cell(*old[..., i])} | {_cell(*new[..., i])}" for i in range(3))
            print(f"{kind.name:30} {truth:5.3f} {num:6}  " + "  ".join(cells), flush=True)


def _coverage(kind: Videos, num: int, truth: float, seed: int) -> Float[ndarray, "methods 2 draws 3"]:
    """Whether each interval holds the truth, and its length: of valence, of the mean, of two systems' difference."""
    rng = np.random.default_rng((seed, num))
    sums = draw(kind, (CHUNK, num), rng)
    whole = sums.sum(axis=1)
    value, left_out = statistics(whole), statistics(whole[:, None] - sums)
    half = concordance.jackknife(left_out, sums[:, :, 0, 0, 0])
    flat = sums.reshape(CHUNK, num, -1)
    times = rng.multinomial(num, np.full(num, 1 / num), (CHUNK, RESAMPLES))
    drawn = statistics((times @ flat).reshape(CHUNK, RESAMPLES, *sums.shape[2:]))
    found = []
    for low, high in (np.percentile(drawn, (2.5, 97.5), axis=1), (value - half, value + half)):
        bound = np.array([1, 1, 2])
        low, high = np.maximum(low, -bound), np.minimum(high, bound)
        true = np.array([truth, truth, 0])
        found.append(((low <= true) & (true <= high), high - low))
    return np.array(found, float)


def _cell(held: ndarray, length: ndarray) -> str:
    share = held.mean()
    error = np.sqrt(share * (1 - share) / held.size)
    return f"{share:.3f} ±{error:.3f} ({length.mean():.2f})".replace("0.", ".")


def population(kind: Videos, rng: np.random.Generator) -> float:
    """CCC over all frames of POPULATION videos, the mean over systems and dimensions."""
    parts = (draw(kind, (POPULATION // 20,), rng).sum(axis=0) for _ in range(20))
    return float(_ccc(sum(parts, np.zeros((2, 2, 6)))).mean())


def draw(kind: Videos, shape: tuple[int, ...], rng: np.random.Generator) -> Float[ndarray, "*shape 2 2 6"]:
    """Sums of 1, x, y, x^2, y^2 and xy over the frames of each video, by system and dimension; lengths in any unit.

    Frames are not drawn: videos are long, so that their moments are what the video's effects make them; noise and
    labels are correlated by chance, since both change slowly.
    """

    def effect(systems: int, *, heavy: bool = True) -> ndarray:
        """Unit variance, correlated .3 between valence and arousal and .5 between two systems."""

        def normal(i: int, j: int) -> ndarray:
            return rng.standard_normal((*shape, i, j))

        own = np.sqrt(0.7) * normal(1, 2) + np.sqrt(0.3) * normal(1, 1)
        if systems == 2:
            own = np.sqrt(0.5) * own + np.sqrt(0.35) * normal(2, 2) + np.sqrt(0.15) * normal(2, 1)
        if not (heavy and kind.freedom):
            return own
        return own * np.sqrt((kind.freedom - 2) / rng.chisquare(kind.freedom, (*shape, 1, 1)))

    length = rng.lognormal(0, kind.lengths, (*shape, 1, 1))
    scale = np.where(rng.random((*shape, 1, 1)) < kind.expressive, 2, 0.3) if kind.expressive else 1
    harder = length**kind.harder
    mean_x = kind.between * scale * effect(1)
    within = kind.within * scale * np.exp(kind.within_spread * effect(1, heavy=False))
    gain = kind.gain + kind.gain_spread * effect(2)
    noise = kind.noise * harder * np.exp(kind.noise_spread * effect(2, heavy=False))
    chance = np.clip(0.15 * effect(2, heavy=False), -0.6, 0.6) * within * noise
    mean_y = kind.offset * harder * effect(2) + gain * mean_x
    xx, yy = within**2 + mean_x**2, (gain * within) ** 2 + 2 * gain * chance + noise**2 + mean_y**2
    xy = gain * within**2 + chance + mean_x * mean_y
    return np.stack([length * part for part in np.broadcast_arrays(1, mean_x, mean_y, xx, yy, xy)], axis=-1)


def _ccc(sums: Float[ndarray, "*sets 6"]) -> Float[ndarray, "*sets"]:
    count, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
    x, y = x / count, y / count
    return concordance.concordance(xx / count - x * x, yy / count - y * y, xy / count - x * y, x - y)


def statistics(sums: Float[ndarray, "*sets 2 2 6"]) -> Float[ndarray, "*sets 3"]:
    """CCC of valence and mean CCC of the first system, and its mean CCC minus the second's."""
    values = _ccc(sums)
    mean = values.mean(axis=-1)
    return np.stack([values[..., 0, 0], mean[..., 0], mean[..., 0] - mean[..., 1]], axis=-1)
