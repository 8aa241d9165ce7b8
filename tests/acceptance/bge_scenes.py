"""Background models on made scenes with known gradients, beside seiza's automatic fit and meshes of sep and photutils.

    bge_scenes.py [first seed] [seeds]

A gradient of 260 ADU over a sky of noise 3, 900 stars, and a galaxy of 20 arcmin at 2.4 arcsec a pixel or a nebula
over 40 % of the frame. Seed 1 was used while the models were built, with one shape of each kind; the shapes named new
only here.
"""

import sys
import time
from pathlib import Path

import numpy as np
import seiza
import sep
from photutils.background import Background2D
from scipy.ndimage import gaussian_filter

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from tilestack import background  # noqa: E402

H, W, AMPLITUDE, NOISE = 1080, 1920, 260.0, 3.0
GRADIENTS = ("plane", "cubic", "vignetting", "moon", "corner", "new moon", "new corner", "new vignetting")


def extended(kind, rng):
    """Light of the object, ADU: (h, w)."""
    y, x = np.mgrid[:H, :W].astype(np.float32)
    cy, cx = H / 2 + rng.uniform(-0.15, 0.15) * H, W / 2 + rng.uniform(-0.15, 0.15) * W
    if kind == "galaxy":
        turn, tilt = rng.uniform(0, np.pi), rng.uniform(0.4, 0.9)
        u = (x - cx) * np.cos(turn) + (y - cy) * np.sin(turn)
        v = ((y - cy) * np.cos(turn) - (x - cx) * np.sin(turn)) / tilt
        r = np.hypot(u, v)
        return 120 * np.exp(-r / 70) + 400 * np.exp(-((r / 18) ** 2))
    threads = np.zeros((H, W), np.float32)
    for size, share in ((120, 1), (50, 0.5), (20, 0.25)):
        wave = gaussian_filter(rng.normal(size=(H // 4, W // 4)), size / 4)
        threads += share * np.kron(wave / wave.std(), np.ones((4, 4)))
    rim = np.hypot((x - cx) / (0.36 * W), (y - cy) / (0.62 * 0.36 * W))
    return 60 * np.maximum(1 + 0.5 * threads, 0.05) / (1 + np.exp(np.clip((rim - 1) / 0.08, -50, 50)))


def gradient(kind, rng):
    """The background without its level, 0 to AMPLITUDE ADU: (h, w)."""
    y, x = np.mgrid[:H, :W]
    y, x = (y - (H - 1) / 2) / (W / 2), (x - (W - 1) / 2) / (W / 2)
    turn = rng.uniform(0, 2 * np.pi)
    if kind == "plane":
        light = x * np.cos(turn) + y * np.sin(turn)
    elif kind == "cubic":
        light = sum(rng.normal() * x**p * y**q for p in range(4) for q in range(4 - p) if p + q)
    elif kind == "vignetting":
        light = -(((x - rng.normal(0, 0.04)) ** 2 + (y - rng.normal(0, 0.04)) ** 2) ** 2) + 0.2 * x * rng.normal()
    elif kind == "new vignetting":  # natural light fall-off of a short lens that a flat left, off its axis
        light = np.cos(np.arctan(1.1 * np.hypot(x - rng.normal(0, 0.08), y - rng.normal(0, 0.08)))) ** 4
    elif kind == "moon":
        light = np.exp(-np.hypot(y - 1.6 * np.sin(turn), x - 1.6 * np.cos(turn)) / 0.8)
    elif kind == "new moon":  # inverse square of the distance on the sky from a moon outside, over a slope
        light = 1 / (0.3 + (y - 1.4 * np.sin(turn)) ** 2 + (x - 1.4 * np.cos(turn)) ** 2) + 0.2 * rng.normal() * y
    else:
        d = np.hypot(y - rng.choice([-1, 1]) * H / W, x - rng.choice([-1, 1]))
        size = rng.uniform(0.3, 0.5)
        light = np.exp(-d / size) if kind == "corner" else np.exp(-((d / (1.6 * size)) ** 2))
        light = light + 0.1 * x
    light = light - light.min()
    return AMPLITUDE * light / light.max()


def star_light(rng, n=900, fwhm=2.8):
    """Stars with Moffat wings, ADU: (h, w)."""
    image, core = np.zeros((H, W), np.float32), fwhm / (2 * np.sqrt(2 ** (1 / 3) - 1))
    for x, y, flux in zip(rng.uniform(0, W, n), rng.uniform(0, H, n), 200 / rng.uniform(1e-3, 1, n), strict=True):
        reach = int(np.clip(8 * fwhm + flux**0.33, 20, 120))
        rows, columns = (np.arange(max(int(c) - reach, 0), min(int(c) + reach, m)) for c, m in ((y, H), (x, W)))
        r2 = (rows[:, None] - y) ** 2 + (columns - x) ** 2
        image[np.ix_(rows, columns)] += 2 * flux / (np.pi * core**2) * (1 + r2 / core**2) ** -3
    return image


def scene(kind, thing, seed):
    """Image (3, h, w), its gradient and the light of its object."""
    light, shape, stars, noise = (np.random.default_rng([seed, k]) for k in range(4))
    colour, dust = np.array([[[0.9]], [[1.0]], [[0.8]]]), np.array([[[1.2]], [[1.0]], [[0.8]]])
    behind, thing = gradient(kind, shape) * colour, extended(thing, light) * dust
    image = 1000 + behind + thing + star_light(stars) + noise.normal(0, NOISE, (3, H, W))
    return image.astype(np.float32), behind, thing


def scores(model, behind, thing):
    """Residual of the worst channel (rms, % of the gradient), and share of the object's light that was removed (%)."""
    rest = model - behind
    rest = rest - np.median(rest, axis=(1, 2), keepdims=True)
    inside = thing[1] > 0.02 * thing[1].max()
    outside = np.median(rest[:, ~inside], axis=1)[:, None]
    taken = (rest[:, inside] - outside).sum(1) / thing[:, inside].sum(1)
    return 100 * rest.std(axis=(1, 2)).max() / AMPLITUDE, 100 * taken[np.abs(taken).argmax()]


def main(first=101, n_seeds=2):
    worst = {}
    for seed in range(first, first + n_seeds):
        for thing_name in ("galaxy", "nebula"):
            for kind in GRADIENTS:
                image, behind, thing = scene(kind, thing_name, seed)
                start = time.process_time()
                found = background.extracted(image, {"method": "polynomial", "order": "auto"})
                seconds = time.process_time() - start
                models = {"ours": background.over_sky(found["model"], (H, W), found["boxes"], found["kept"])}
                planes = [np.ascontiguousarray(plane) for plane in image]
                models["seiza"] = np.stack(
                    [seiza.fit_background(p, model="automatic", degree=3).render().reshape(H, W) for p in planes]
                )
                models["sep 64"] = np.stack([sep.Background(p, bw=64, bh=64).back() for p in planes])
                models["photutils 128"] = np.stack([Background2D(p, 128).background for p in planes])
                result = {name: scores(model, behind, thing) for name, model in models.items()}
                for name, (rest, taken) in result.items():
                    old = worst.setdefault((kind, name), [0.0, 0.0])
                    worst[kind, name] = [max(old[0], rest), max(old[1], abs(taken))]
                text = "; ".join(f"{name} {rest:.2f} % object {taken:+.1f} %" for name, (rest, taken) in result.items())
                choice = f"{found['method']} {found['order']}, {found['reason'] or 'used'}"
                star = max(channel["star_flux_change"] for channel in found["channels"])
                print(
                    f"{seed} {thing_name} {kind}: {text}; {choice}, stars {star:.1e}, {seconds:.1f} CPU s",
                    flush=True,
                )
    for (kind, name), (rest, taken) in worst.items():
        print(f"worst of {kind}, {name}: residual {rest:.2f} %, object {taken:.1f} %")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
