"""STATE_CLUSTERING: frames of a session grouped by the state of sky and instrument that they were taken in."""

import sys

import numpy as np
from threadpoolctl import threadpool_limits

from tilestack import records, robust

# scikit-learn imports pandas where it finds it, which takes half of the time of the job and is of no use here.
if no_pandas := "pandas" not in sys.modules:
    sys.modules["pandas"] = None
from sklearn.cluster import KMeans  # noqa: E402
from sklearn.metrics import adjusted_rand_score, silhouette_score  # noqa: E402

if no_pandas:
    del sys.modules["pandas"]

# What describes the state of a frame, and the least spread that tells states apart: what changes by less makes no
# difference to a stack. 5 % of light, noise or seeing are 10 % of squared S/N. ASSUME: a gradient of one sigma and a
# turn of 5 degrees are as much.
FLOORS = {
    "ln_transparency": 0.05,
    "ln_sky": 0.05,
    "ln_noise": 0.05,
    "ln_fwhm": 0.05,
    "roundness": 0.05,
    "ln_weight": 0.1,
    "weight_spread": 0.05,
    "gradient": 1.0,
    "rotation_deg": 5.0,
}
# Words for a cluster that lies this many spreads off the median frame, in the mean.
WORDS = {
    "ln_transparency": ("hazy", "clear"),
    "ln_sky": ("dark sky", "bright sky"),
    "ln_noise": ("quiet", "noisy"),
    "ln_fwhm": ("sharp", "soft"),
    "roundness": ("elongated stars", "round stars"),
    "weight_spread": ("even", "patchy"),
    "gradient": ("flat sky", "strong gradient"),
    "rotation_deg": ("turned back", "turned on"),
}
STANDS_OUT = 1.5
# Standard scores beyond this say no more: one frame behind a cloud would else be the whole of the variance, and states
# that differ much in one thing would hide those that differ enough in another.
MOST_SPREADS = 3.0
SEED, STARTS, N_BOOTSTRAPS = 1, 10, 20
# A cluster has at least so many frames in the mean, or its synthetic frame is hardly one. ASSUME.
FEWEST_PER_CLUSTER = 5
# Below this silhouette there is no structure (Kaufman and Rousseeuw 1990, Finding Groups in Data, table 4).
NO_STRUCTURE = 0.25


def states(whole, local, rotation_deg):
    """State vectors of frames.

    Parameters
    ----------
    whole : list of dict
        Frames of ``work/global/{session}.json``.
    local : list of dict
        The same frames in ``work/weights/{session}.json``.
    rotation_deg : (n,) array
        Rotation on the lattice.

    Returns
    -------
    dict of str to (n,) float64 array
        By the names of FLOORS; what is not known is that of the median frame.
    """

    def column(frames, name):
        values = records.array([frame[name] for frame in frames])
        return values.mean(1) if values.ndim == 2 else values

    angle = np.radians(rotation_deg)
    middle = np.angle(np.median(np.cos(angle)) + 1j * np.median(np.sin(angle)))
    scale, noise = column(whole, "scale"), column(whole, "noise_adu")
    with np.errstate(divide="ignore", invalid="ignore"):
        vectors = {
            "ln_transparency": np.log(column(whole, "transparency")),
            "ln_sky": np.log(column(whole, "sky_adu")),
            "ln_noise": np.log(noise / scale),
            "ln_fwhm": np.log(column(whole, "fwhm_px")),
            "roundness": column(whole, "roundness"),
            "ln_weight": np.log(column(local, "mean_weight")),
            "weight_spread": np.hypot(column(local, "rms_ln_t"), column(local, "rms_ln_fwhm")),
            "gradient": column(whole, "gradient_adu") / noise,
            "rotation_deg": np.degrees(np.angle(np.exp(1j * (angle - middle)))),
        }
    for name, values in vectors.items():
        known = np.isfinite(values)
        vectors[name] = np.where(known, values, np.median(values[known]) if known.any() else 0.0)
    return vectors


def standardised(vectors):
    """Robust standard scores within +-MOST_SPREADS: (n, d) float64; frames in the order of time.

    The unit is the geometric mean of two spreads, by 1.4826 MAD, with a floor: that of all frames, which grows with the
    distance of the states, and that from frame to frame, in which a slow drift has no part.
    """
    scores = []
    for name, values in vectors.items():
        steps = robust.spread(np.diff(values)) / np.sqrt(2) if len(values) > 1 else 0.0
        spread = max(np.sqrt(robust.spread(values) * steps), FLOORS[name])
        scores.append(np.clip((values - np.median(values)) / spread, -MOST_SPREADS, MOST_SPREADS))
    return np.column_stack(scores)


def decorrelated(scores):
    """Scores of which those that say the same count as one: each over the root of its summed squared correlations.

    Haze shows in transparency, sky, noise and weight: else it would count four times, poor seeing once.
    """
    known = scores.std(0) > 0
    correlation = np.eye(scores.shape[1])
    if known.sum() > 1:
        correlation[np.ix_(known, known)] = np.corrcoef(scores[:, known].T)
    return scores / np.sqrt((correlation**2).sum(1))


def grouped(vectors, count_range, rule):
    """Clusters of frames.

    Parameters
    ----------
    vectors : dict
        From ``states``.
    count_range : (int, int)
        Fewest and most clusters.
    rule : str
        ``silhouette``: the number of clusters with the largest mean silhouette (Rousseeuw 1987,
        doi:10.1016/0377-0427(87)90125-7); ``tenth``: a tenth of the frames.

    Returns
    -------
    labels : (n,) int array
        Cluster of each frame; 0 is that of the largest weight.
    how : dict
        ``method``, ``silhouette`` and ``stability``, the mean adjusted Rand index (Hubert and Arabie 1985) with the
        clusters of bootstrap samples; null with a single cluster.

    Notes
    -----
    K-means (scikit-learn) with a fixed seed on one thread: its sums would else depend on the number of threads. Where a
    cluster stays empty, as frames are too much alike, clusters are quantiles of the weight.
    """
    scores, weight = decorrelated(standardised(vectors)), vectors["ln_weight"]
    n = len(scores)
    few, many = count_range
    many = min(many, n // FEWEST_PER_CLUSTER)
    if rule == "tenth":
        counts = [int(np.clip(n // 10, few, max(many, 1)))]
    else:
        counts = range(max(few, 2), many + 1)
    counts = [count for count in counts if 1 < count <= many]
    if not counts:
        return np.zeros(n, int), {"method": "one", "silhouette": None, "stability": None}
    with threadpool_limits(limits=1):
        n_distinct = len(np.unique(scores, axis=0))
        made = {k: _fit(scores, k).labels_ for k in counts if k <= n_distinct}
        made = {k: labels for k, labels in made.items() if len(np.unique(labels)) == k}
        if not made and few == 1 and rule == "silhouette":
            return np.zeros(n, int), {"method": "one", "silhouette": None, "stability": None}
        if not made:
            return _ordered(_quantiles(weight, counts[0]), weight), {
                "method": "quantiles",
                "silhouette": None,
                "stability": None,
            }
        silhouettes = {k: float(silhouette_score(scores, labels)) for k, labels in made.items()}
        best = max(silhouettes, key=silhouettes.get)
        if few == 1 and rule == "silhouette" and silhouettes[best] < NO_STRUCTURE:
            return np.zeros(n, int), {"method": "one", "silhouette": silhouettes[best], "stability": None}
        stability = _stability(scores, made[best], best)
    return _ordered(made[best], weight), {"method": "k-means", "silhouette": silhouettes[best], "stability": stability}


def _fit(scores, k):
    return KMeans(k, n_init=STARTS, random_state=SEED).fit(scores)


def _stability(scores, labels, k):
    rng = np.random.default_rng(SEED)
    agreements = []
    for _ in range(N_BOOTSTRAPS):
        sample = rng.integers(0, len(scores), len(scores))
        if len(np.unique(scores[sample], axis=0)) >= k:
            agreements.append(adjusted_rand_score(labels, _fit(scores[sample], k).predict(scores)))
    return float(np.clip(np.mean(agreements), 0, 1)) if agreements else None


def _quantiles(weight, k):
    """Groups of equal size by rank of the weight."""
    labels = np.empty(len(weight), int)
    labels[np.argsort(-weight, kind="stable")] = np.arange(len(weight)) * k // len(weight)
    return labels


def _ordered(labels, weight):
    """The same clusters, numbered by falling mean weight."""
    means = [weight[labels == k].mean() for k in range(labels.max() + 1)]
    place = np.empty(len(means), int)
    place[np.argsort(-np.array(means), kind="stable")] = np.arange(len(means))
    return place[labels]


def described(vectors, labels):
    """Each cluster in words and numbers: ``size``, ``words``, ``mean`` (of the state vectors)."""
    scores = dict(zip(vectors, standardised(vectors).T, strict=True))
    result = []
    for k in range(labels.max() + 1):
        mine = labels == k
        off = {name: float(scores[name][mine].mean()) for name in WORDS}
        words = [WORDS[name][value > 0] for name, value in off.items() if abs(value) >= STANDS_OUT]
        result.append(
            {
                "size": int(mine.sum()),
                "words": ", ".join(words) or "typical",
                "mean": {name: records.rounded(values[mine].mean(), 5) for name, values in vectors.items()},
            }
        )
    return result
