"""How near a generated clip is to the truth. Pure functions of arrays; frames are (F, H, W, 3) uint8, RGB.

Every measure has a known value for the truth itself and for a frozen picture, so that neither can be mistaken for
success: the truth has PSNR 100, SSIM 1, mouth correlation 1 and flicker 1; a frozen picture has flicker 0 and mouth
correlation 0. `fedtalk.evaluation.specs` is the table of what `fedtalk test` measures with them.
"""

from fedtalk.evaluation.metrics.distributions import frechet_distance
from fedtalk.evaluation.metrics.faces import identity, landmark_distance, mouth_landmark_distance
from fedtalk.evaluation.metrics.intervals import bootstrap_interval
from fedtalk.evaluation.metrics.motion import flicker, jitter, warping_error
from fedtalk.evaluation.metrics.mouth import (
    lip_leakage,
    mouth_amplitude,
    mouth_corr,
    mouth_distance,
    pooled_mouth_corr,
)
from fedtalk.evaluation.metrics.pictures import PSNR_CEILING, mouth_boxes, psnr, psnr_mouth, ssim

__all__ = [
    "PSNR_CEILING", "bootstrap_interval", "flicker", "frechet_distance", "identity", "jitter", "landmark_distance",
    "lip_leakage", "mouth_amplitude", "mouth_boxes", "mouth_corr", "mouth_distance", "mouth_landmark_distance",
    "pooled_mouth_corr", "psnr", "psnr_mouth", "ssim", "warping_error",
]  # fmt: skip
