"""States of frames: what is grouped, by how many clusters, and what they are called."""

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from tilestack import clustering

# Means of the state vector in three states, and the scatter of a frame in it.
CLEAR = {"ln_transparency": 0.0, "ln_sky": 7.4, "ln_noise": 4.9, "ln_fwhm": 1.0}
HAZE = {"ln_transparency": -0.5, "ln_sky": 7.65, "ln_noise": 5.5, "ln_fwhm": 1.0}
SOFT = {"ln_transparency": 0.0, "ln_sky": 7.45, "ln_noise": 4.9, "ln_fwhm": 1.4}
SCATTER = {"ln_transparency": 0.08, "ln_sky": 0.03, "ln_noise": 0.09, "ln_fwhm": 0.09}


def night(states, n, seed=0):
    """State vectors of n frames in each state, and the state of each."""
    rng = np.random.default_rng(seed)
    true = np.repeat(np.arange(len(states)), n)
    m = len(true)
    vectors = {
        key: np.array([states[t][key] for t in true]) + rng.normal(0, scatter, m) for key, scatter in SCATTER.items()
    }
    vectors["roundness"] = rng.normal(0.9, 0.02, m)
    vectors["ln_weight"] = -2 * vectors["ln_noise"] - vectors["ln_fwhm"]
    vectors["weight_spread"] = np.abs(rng.normal(0.03, 0.02, m))
    vectors["gradient"] = np.linspace(0.5, 2.5, m) + rng.normal(0, 0.3, m)
    vectors["rotation_deg"] = np.linspace(-8, 8, m)
    return vectors, true


def test_grouped__finds_the_states_and_their_number():
    for seed in range(5):
        vectors, true = night([CLEAR, HAZE, SOFT], 80, seed)
        labels, how = clustering.grouped(vectors, (2, 30), "silhouette")
        assert labels.max() + 1 == 3 and adjusted_rand_score(true, labels) >= 0.9
        assert how["method"] == "k-means" and how["stability"] > 0.9 and how["silhouette"] > 0.25


def test_grouped__gives_the_same_twice_and_backwards():
    vectors, _ = night([CLEAR, HAZE, SOFT], 40)
    labels, how = clustering.grouped(vectors, (2, 30), "silhouette")
    again, same = clustering.grouped(vectors, (2, 30), "silhouette")
    assert (labels == again).all() and how == same
    back, _ = clustering.grouped({key: values[::-1] for key, values in vectors.items()}, (2, 30), "silhouette")
    assert adjusted_rand_score(labels[::-1], back) > 0.95


def test_grouped__finds_states_that_few_frames_have():
    vectors, true = night([CLEAR, HAZE, SOFT], 80, 3)
    some = np.r_[0:80, 80:110, 160:185]
    labels, _ = clustering.grouped({key: values[some] for key, values in vectors.items()}, (2, 30), "silhouette")
    assert adjusted_rand_score(true[some], labels) > 0.9


def test_grouped__numbers_clusters_by_weight_and_says_what_they_are():
    vectors, true = night([SOFT, HAZE, CLEAR], 60)
    labels, _ = clustering.grouped(vectors, (2, 30), "silhouette")
    means = [vectors["ln_weight"][labels == k].mean() for k in range(3)]
    assert means == sorted(means, reverse=True)
    words = [cluster["words"] for cluster in clustering.described(vectors, labels)]
    of_state = {t: words[np.bincount(labels[true == t]).argmax()] for t in range(3)}
    assert "soft" in of_state[0] and "hazy" in of_state[1] and "noisy" in of_state[1]
    assert "hazy" not in of_state[2] and "soft" not in of_state[2]
    sizes = [cluster["size"] for cluster in clustering.described(vectors, labels)]
    assert sizes == np.bincount(labels).tolist()


def test_grouped__takes_a_tenth_of_the_frames_by_choice():
    vectors, _ = night([CLEAR, HAZE, SOFT], 80)
    assert clustering.grouped(vectors, (2, 30), "tenth")[0].max() + 1 == 24
    assert clustering.grouped(vectors, (2, 6), "tenth")[0].max() + 1 == 6


@pytest.mark.parametrize("n", [1, 3, 9])
def test_grouped__leaves_few_frames_together(n):
    vectors, _ = night([CLEAR], n)
    labels, how = clustering.grouped(vectors, (2, 30), "silhouette")
    assert (labels == 0).all() and how["method"] == "one"


def test_grouped__leaves_a_steady_night_together_where_one_cluster_is_allowed():
    vectors, _ = night([CLEAR], 80)
    vectors["gradient"][:] = 1.0
    vectors["rotation_deg"][:] = 0.0
    assert clustering.grouped(vectors, (1, 30), "silhouette")[1]["method"] == "one"
    assert clustering.grouped(vectors, (2, 30), "silhouette")[0].max() >= 1


def test_grouped__falls_back_to_quantiles_of_the_weight_where_frames_are_alike():
    same = {key: np.zeros(60) for key in clustering.FLOORS}
    same["ln_weight"] = np.where(np.arange(60) < 20, 0.5, 0.0)  # two distinct frames, three clusters asked for
    labels, how = clustering.grouped(same, (3, 30), "silhouette")
    assert how["method"] == "quantiles" and np.bincount(labels).tolist() == [20, 20, 20]
    assert (labels[:20] == 0).all()
    alike = {key: np.zeros(60) for key in clustering.FLOORS}
    assert clustering.grouped(alike, (1, 30), "silhouette")[1]["method"] == "one"


def test_decorrelated__counts_what_is_said_four_times_once():
    rng = np.random.default_rng(1)
    haze, seeing = rng.normal(size=(2, 4000))
    scores = clustering.decorrelated(np.column_stack([haze, haze, -haze, haze, seeing]))
    np.testing.assert_allclose((scores[:, :4] ** 2).sum(1), haze**2, rtol=0.01)
    np.testing.assert_allclose(scores[:, 4], seeing, rtol=0.01)


def test_states__fills_what_is_not_known_and_takes_no_half_turn_for_a_whole_one():
    whole = [
        {
            "scale": [1.0],
            "noise_adu": [10.0],
            "transparency": [1.0],
            "sky_adu": [1000.0],
            "fwhm_px": fwhm,
            "roundness": 0.9,
            "gradient_adu": [5.0],
        }
        for fwhm in (2.0, None, 2.0)
    ]
    local = [{"mean_weight": [1.0], "rms_ln_t": 0.0, "rms_ln_fwhm": 0.0} for _ in whole]
    vectors = clustering.states(whole, local, np.array([179.0, -179.0, 180.0]))
    np.testing.assert_allclose(vectors["ln_fwhm"], np.log(2))
    np.testing.assert_allclose(sorted(vectors["rotation_deg"]), [-1, 0, 1], atol=1e-9)
