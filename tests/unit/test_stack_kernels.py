"""Planes of a stack against their definitions by numpy."""

import numpy as np
import pytest

from tilestack.kernels import coadd, stack


def defined(sums, n, ceiling):
    """The planes as docs/method.md has them, in double precision."""
    s = dict(zip(coadd.SUMS, sums, strict=True))
    with np.errstate(invalid="ignore", divide="ignore"):
        w = s["W_EVEN"] + s["W_ODD"]
        w = np.where(w > 0, w, np.nan)
        both = (s["W_EVEN"] > 0) & (s["W_ODD"] > 0)
        share = np.sqrt(np.where(both, s["W_ODD"] / s["W_EVEN"], np.nan))
        return {
            "SCI": (s["WY_EVEN"] + s["WY_ODD"]) / w,
            "VAR": s["W2V"] / w**2,
            "WHT": np.nan_to_num(w),
            "EXP": s["EXPOSURE"],
            "EVEN": s["WY_EVEN"] / np.where(s["W_EVEN"] > 0, s["W_EVEN"], np.nan),
            "ODD": s["WY_ODD"] / np.where(s["W_ODD"] > 0, s["W_ODD"], np.nan),
            "SPLIT": (s["WY_EVEN"] * share - s["WY_ODD"] / share) / w,
            "MEAN": s["Y"] / np.where(n > 0, n, np.nan),
            "IVAR": s["IY"] / np.where(s["I"] > 0, s["I"], np.nan),
            "ETA": w**2 / (s["W2R"] * ceiling),
        }


def test_planes__are_as_defined_and_nan_without_data():
    rng = np.random.default_rng(4)
    shape = (2, 40, 37)
    sums, n, ceiling = rng.uniform(1, 2, (10, *shape)), rng.integers(1, 30, shape), rng.uniform(1, 2, shape)
    sums[1:4:2, :, :5] = 0.0  # no weight at all, in one half, in the other
    sums[1, :, 5:9], sums[3, :, 9:12] = 0.0, 0.0
    sums[:, :, 12], n[:, 12] = 0.0, 0
    found = dict(zip(stack.PLANES, stack.planes(sums, n, ceiling), strict=True))
    for name, expected in defined(sums, n, ceiling).items():
        np.testing.assert_allclose(found[name], expected, rtol=1e-6, atol=1e-6, err_msg=name)
    assert np.isnan(found["SCI"][:, :5]).all() and np.isfinite(found["SCI"][:, 5:12]).all()
    with pytest.raises(ValueError, match="ceiling"):
        stack.planes(sums, n, ceiling[:1])
