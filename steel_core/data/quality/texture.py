"""A description of a surface that no model has learnt: how strong its detail is, by scale and direction.

Mean and spread of the responses of derivative filters at four scales (after T. Leung, J. Malik, IJCV 43, 2001), with a
histogram of local binary patterns (T. Ojala, M. Pietikäinen, T. Mäenpää, IEEE PAMI 24(7), 2002). It serves where labels
are doubted: a network that was trained on them would defend them.
"""

import cv2
import numpy as np

from steel_core.types import Float32Array

_SIGMAS = (1.0, 2.0, 4.0, 8.0)
_SIDE = 200  # pixels; geometric mean of the sides that larger pictures are reduced to
_NEIGHBOURS = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))
_TURNS = np.array([bin(code ^ ((code >> 1) | (code & 1) << 7)).count("1") for code in range(256)])
_UNIFORM = np.where(_TURNS <= 2, [bin(code).count("1") for code in range(256)], 9)  # 10 patterns


def describe_texture(grey: Float32Array) -> Float32Array:
    """(T,) description of a grey picture (H, W) in 0 to 1."""
    zoom = _SIDE / np.sqrt(grey.size)
    if zoom < 1:
        grey = np.asarray(cv2.resize(grey, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA), np.float32)
    out = [float(grey.mean()), float(grey.std()), *np.percentile(grey, [2, 25, 50, 75, 98])]
    for sigma in _SIGMAS:
        smooth = np.asarray(cv2.GaussianBlur(grey, (0, 0), sigma), np.float32)
        across, down = (cv2.Sobel(smooth, cv2.CV_32F, dx, dy) for dx, dy in ((1, 0), (0, 1)))
        diagonal = (across + down) / np.sqrt(2), (across - down) / np.sqrt(2)
        blob = cv2.Laplacian(smooth, cv2.CV_32F)
        for response in (across, down, *diagonal, blob):
            size = np.abs(response)
            out += [np.log(size.mean() + 1e-5), np.log(size.std() + 1e-5)]
        for response in (blob, smooth):
            away = (response - response.mean()) / (float(response.std()) + 1e-6)
            out.append(float(np.mean(away * away * away)))  # bright spots or dark ones; `**` takes 30 times as long
        out += _patterns(smooth)
    return np.array(out, np.float32)


def _patterns(smooth: Float32Array) -> list[float]:
    if min(smooth.shape) < 3:
        return [0.0] * 10
    centre = smooth[1:-1, 1:-1]
    height, width = smooth.shape
    code = np.zeros(centre.shape, np.uint8)
    for bit, (dy, dx) in enumerate(_NEIGHBOURS):
        code |= (smooth[1 + dy : height - 1 + dy, 1 + dx : width - 1 + dx] > centre).astype(np.uint8) << bit
    return (np.bincount(_UNIFORM[code].ravel(), minlength=10) / code.size).tolist()
