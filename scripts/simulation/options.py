"""What a series is made of."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """Options of a series; units stand in the names.

    Parameters
    ----------
    n_frames, height_px, width_px : int
    seed : int
        Decides all that is random.
    pattern : str or None
        Bayer pattern of the first rows of the file; None makes mono lights.
    ra_deg, dec_deg : float
        Centre of the field; the default lies in Cygnus. Stars are the catalogue's, galaxies and nebula are invented.
    scale_arcsec : float
        Size of a pixel.
    fwhm_px, fwhm_spread : float
        Median FWHM of the stars in the middle of the field, and rms of its logarithm over the frames.
    exposure_s : float
    interval_s : float
        Time from the start of a frame to that of the next.
    gain_e_adu, read_noise_e, bias_adu, adc_step_adu : float
        Electrons per ADU, noise of reading a pixel, level without light, and step of the converter in ADU.
    sky_e_s : float
        Sky in the green of a pixel.
    zero_point_mag : float
        V magnitude of a G2V star that gives one electron a second in green.
    dither_px : float
        Rms of the offsets, drawn anew every fourth frame.
    transparency_spread, cloud_share, trail_share, gradient : float
        Rms of the log transparency; shares of frames with cloud and with a trail; size of the sky gradient over the
        sky.
    sky_spread : float
        Rms of the logarithm of the sky over the frames.
    local_seeing : float
        Rms of the bumps of the FWHM over the field of a frame, relative.
    thick_cloud_share, thick_cloud_least, thick_cloud_most : float
        Share of frames of which only a part of the light comes through, anything between these shares.
    quadrant_spread : float
        Rms over the frames of the log transparency of one quadrant (low rows and columns), on top.
    state_frames : int
        Frames in a row of each of ``night.STATES``; 0 leaves the night without.
    smear_share, smear_px : float
        Share of frames whose stars are trails of so many pixels.
    cosmic_share : float
        Share of pixels in which a cosmic ray begins.
    rotation : bool
        Alt-azimuth field rotation.
    hot_share : float
        Share of defective pixels.
    faint_stars : bool
        Stars fainter than the catalogue, at random places.
    extended : bool
        Galaxies and a nebula.
    """

    n_frames: int = 32
    height_px: int = 720
    width_px: int = 1080
    seed: int = 1
    pattern: str | None = "GRBG"
    ra_deg: float = 303.0
    dec_deg: float = 38.35
    scale_arcsec: float = 2.4
    fwhm_px: float = 2.4
    fwhm_spread: float = 0.12
    exposure_s: float = 10.0
    interval_s: float = 30.0
    gain_e_adu: float = 0.08
    read_noise_e: float = 1.6
    bias_adu: float = 320.0
    adc_step_adu: float = 16.0
    sky_e_s: float = 4.0
    zero_point_mag: float = 17.1
    dither_px: float = 9.0
    transparency_spread: float = 0.05
    cloud_share: float = 0.2
    trail_share: float = 0.15
    gradient: float = 0.12
    sky_spread: float = 0.02
    local_seeing: float = 0.04
    thick_cloud_share: float = 0.0
    thick_cloud_least: float = 0.03
    thick_cloud_most: float = 0.03
    quadrant_spread: float = 0.0
    state_frames: int = 0
    smear_share: float = 0.0
    smear_px: float = 10.0
    cosmic_share: float = 1.5e-6
    rotation: bool = True
    hot_share: float = 4e-4
    faint_stars: bool = True
    extended: bool = True

    @property
    def channels(self):
        return ("R", "G", "B") if self.pattern else ("L",)
