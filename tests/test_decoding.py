"""Decoding: any of pillow's modes becomes upright RGB; the rest is refused."""

import numpy as np
import pytest
from photographs import encode, photograph
from PIL import Image

from attnprobe.errors import ImagesError
from attnprobe.images import decoding


def test_grey_16_bit_keeps_its_range():
    ramp = (np.arange(64 * 64).reshape(64, 64) * 16).astype(np.uint16)
    image = decoding.decode(encode(Image.fromarray(ramp), "PNG"))
    assert np.array_equal(np.asarray(image)[..., 1], np.round(ramp / 257).astype(np.uint8))


def test_exif_rotation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned; show the rows as columns
    image = photograph(0, (48, 24))
    turned = decoding.decode(encode(image, "PNG", exif=exif))
    assert np.array_equal(np.asarray(turned), np.rot90(np.asarray(image), -1))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr"])
def test_every_mode_becomes_rgb(mode):
    file_format = "TIFF" if mode in {"CMYK", "YCbCr"} else "PNG"
    colour = Image.new("RGB", (16, 16), "white").convert(mode)
    image = decoding.decode(encode(colour, file_format))
    assert image.mode == "RGB"
    assert image.getpixel((3, 3)) == pytest.approx((255, 255, 255), abs=2)


def test_transparent_pixels_are_white_not_their_hidden_colour():
    palette = Image.new("P", (16, 16), 1)
    palette.putpalette([0, 0, 0, 200, 0, 0])
    for image in (Image.new("RGBA", (16, 16), (200, 0, 0, 0)), palette):
        decoded = decoding.decode(
            encode(image, "PNG", transparency=1) if image is palette else encode(image, "PNG")
        )
        assert decoded.getpixel((0, 0)) == (255, 255, 255)


def test_unknown_ranges_are_refused():
    with pytest.raises(ImagesError, match="no known range"):
        decoding.decode(encode(Image.new("F", (16, 16), 0.5), "TIFF"))
