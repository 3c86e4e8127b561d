import io
import os
import struct
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFile, ImageOps

from imagesmith.core import errors
from imagesmith.core.errors import BadImage, BadInput, ImageTooLarge, UnsupportedImage
from imagesmith.image import readers
from imagesmith.image.decode import Limits, Photo, decode_image, find_images, iter_photos, open_header

JARGON = ("PIL", "Pillow", "<_io", "Error", "Traceback", "object at 0x", "NoneType")


def test_odd_file_decodes_to_what_it_shows(good_case):
    case = good_case()
    start = time.process_time()
    photo = decode_image(case.data, name="odd")
    assert time.process_time() - start < 1
    assert photo.format == case.format
    assert photo.frames == case.frames
    assert photo.pixels.dtype == np.uint8
    if case.pixels is not None:
        assert photo.pixels.shape == case.pixels.shape
        difference = np.abs(photo.pixels.astype(int) - case.pixels)
        assert difference.max() <= case.tolerance
        assert difference.mean() < 8
    if case.alpha is None:
        assert photo.alpha is None
    else:
        assert np.array_equal(photo.alpha, case.alpha)
    assert bool(photo.warnings) == bool(case.warning)
    assert case.warning in " ".join(photo.warnings)


def test_hostile_file_is_refused_in_one_sentence(bad_case, tmp_path):
    case = bad_case()
    path = tmp_path / "some picture.jpg"
    path.write_bytes(case.data)
    start = time.process_time()
    with pytest.raises(BadImage) as caught:
        decode_image(path)
    assert time.process_time() - start < 1
    sentence = str(caught.value)
    assert type(caught.value) is getattr(errors, case.error)
    assert sentence.startswith(f"{path}: ")
    assert sentence.count(path.name) == 1
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert case.word in sentence
    assert not any(word in sentence for word in JARGON)


def test_a_ramp_of_16_bits_keeps_its_levels(images):
    ramp = np.linspace(0, 65535, 1024).astype(np.uint16).reshape(4, 256)
    for data in (images.png16(ramp), images.encode(ramp, "TIFF")):
        assert len(np.unique(decode_image(data).pixels)) > 200


def test_an_srgb_profile_changes_no_pixel(images):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    photo = decode_image(images.encode(images.scene(), "PNG", icc_profile=profile))
    assert np.array_equal(photo.pixels, images.scene())
    assert not photo.warnings


def test_a_picture_of_many_strips_is_converted_like_one_piece(images):
    """Pillow's own whole-picture conversion is the oracle; the picture spans several strips."""
    picture = images.scene(700, 900)
    image, _ = images.cmyk_picture(picture)
    for source in (Image.fromarray(picture).quantize(64), image, Image.fromarray(picture).convert("YCbCr")):
        assert np.array_equal(decode_image(source).pixels, np.asarray(source.convert("RGB")))


def test_12_bits_in_16_are_not_taken_for_darkness():
    packed = np.packbits(
        np.unpackbits(np.array([[0, 0], [0x0F, 0xFF]], np.uint8), axis=1)[:, 4:].reshape(-1)
    ).tobytes()  # 0 and 4095
    entries = [(256, 2), (257, 1), (258, 12), (259, 1), (262, 1), (273, 134), (277, 1), (278, 1), (279, 3), (339, 1)]
    body = b"".join(struct.pack("<HHII", tag, 3, 1, value) for tag, value in entries)
    data = b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + struct.pack("<I", 0) + packed
    assert decode_image(data).pixels[0, :, 0].tolist() == [0, 255]


# --- orientation ------------------------------------------------------------------------------------------------------

STORED = {  # how a camera that notes this orientation lays an upright picture into the file
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: np.rot90(p, 1),
    7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
    8: lambda p: np.rot90(p, -1),
}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("shape", [(24, 40), (40, 24)])
def test_every_orientation_comes_out_upright(images, kind, shape):
    upright = images.scene(*shape)
    best = {"JPEG": {"quality": 98, "subsampling": 0}, "WEBP": {"lossless": True}, "AVIF": {"quality": 98}}.get(
        kind, {}
    )
    for value in range(10):
        stored = np.ascontiguousarray(STORED.get(value, STORED[1])(upright))
        exif = Image.Exif()
        exif[0x0112] = value
        data = images.encode(stored, kind, exif=exif, **best)
        photo = decode_image(data)
        assert photo.pixels.shape == upright.shape, value
        assert np.abs(photo.pixels.astype(int) - upright).max() <= 24, value
        turned = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
        assert np.array_equal(photo.pixels, np.asarray(turned)), value


def test_alpha_turns_with_its_picture(images):
    upright = np.dstack([images.scene(20, 30), images.scene(20, 30)[..., 1]])
    data = images.encode(np.ascontiguousarray(np.rot90(upright, 1)), "PNG", exif=images.exif(6, "<"))
    assert np.array_equal(decode_image(data).alpha, upright[..., 3])


def test_orientation_in_imagemagicks_hexadecimal_text(images):
    upright = images.scene(20, 30)
    block = images.exif(8)
    text = f"\nexif\n{len(block):8}\n" + block.hex()
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("Raw profile type exif", text)
    data = images.encode(np.ascontiguousarray(STORED[8](upright)), "PNG", pnginfo=info)
    assert np.array_equal(decode_image(data).pixels, upright)


def test_no_damage_to_exif_costs_the_picture(images):
    rng = np.random.default_rng(0)
    whole = images.exif(6) + rng.bytes(60)
    for _ in range(150):
        block = bytearray(whole)
        for place in rng.integers(6, len(block), 6):
            block[place] = rng.integers(256)
        for kind in ("JPEG", "PNG", "WEBP"):
            decode_image(images.encode(images.scene(8, 8), kind, exif=bytes(block)))


# --- frames -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["animated_gif", "animated_webp", "animated_png", "animated_avif", "tiff_pages"])
def test_a_frame_that_is_asked_for(images, name):
    data = images.good[name]().data
    for index, image in enumerate(images.bands()):
        photo = decode_image(data, frame=index)
        assert np.abs(photo.pixels.astype(int) - np.asarray(image)).max() <= 4
        assert photo.frames == 3
    for missing in (3, -1):
        with pytest.raises(BadImage, match=f"frame {missing} was asked for, but it has 3"):
            decode_image(data, frame=missing)


def test_reaching_a_far_frame_of_a_large_animation_is_refused(images):
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\0"
    data = b"GIF89a" + struct.pack("<HHBBB", 4000, 4000, 0x80, 0, 0) + b"\xff\0\0\0\0\xff" + frame * 100 + b";"
    start = time.process_time()
    with pytest.raises(ImageTooLarge, match="built from all before it"):
        decode_image(data, frame=99)
    assert time.process_time() - start < 1


# --- sources ----------------------------------------------------------------------------------------------------------


def test_every_kind_of_source_gives_the_same_photo(images, tmp_path):
    pixels = images.scene()
    data = images.encode(pixels, "PNG")
    path = tmp_path / "photo.jpg"  # the suffix is wrong, and does not matter
    path.write_bytes(data)
    stream = io.BytesIO(data)
    stream.seek(len(data))
    with path.open("rb") as file:
        sources = [path, str(path), data, bytearray(data), memoryview(data), stream, file, Image.open(path), pixels]
        photos = [decode_image(source) for source in sources]
    assert all(np.array_equal(photo.pixels, pixels) for photo in photos)
    assert [photo.name for photo in photos] == [
        *(str(path), str(path), "image", "image", "image", "image", str(path), str(path), "array")
    ]
    assert photos[0].format == "PNG"
    again = decode_image(photos[0])
    assert again is photos[0]
    assert decode_image(photos[0], name="other").name == "other"


def test_arrays_of_every_type():
    gray = np.array([[0, 128, 255]], np.uint8)
    expected = np.repeat(gray[..., None], 3, axis=2)
    for array in (gray, gray[..., None], gray.astype(np.uint16) << 8, gray / 255, (gray / 255).astype(np.float16)):
        assert np.array_equal(decode_image(array).pixels, expected), array.dtype
    assert decode_image(np.array([[False, True]])).pixels[0, :, 0].tolist() == [0, 255]
    rgba = np.array([[[0, 0, 0, 0], [10, 20, 30, 255]]], np.uint8)
    photo = decode_image(rgba)
    assert photo.pixels.tolist() == [[[255, 255, 255], [10, 20, 30]]]
    assert photo.alpha.tolist() == [[0, 255]]


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((3, 5, 7)), "channels last"),
        (np.zeros((5, 7, 2), np.uint8), "shape"),
        (np.zeros((2, 5, 7, 3), np.uint8), "shape"),
        (np.zeros((0, 7), np.uint8), "no pixels"),
        (np.full((2, 2), 255.0), "0..1"),
        (np.full((2, 2), np.nan), "0..1"),
        (np.zeros((2, 2), np.int64), "int64"),
        (np.zeros((2, 2), complex), "complex"),
        (np.zeros((5001, 5000), np.uint8), "25 megapixels"),
    ],
)
def test_arrays_that_are_no_image(array, reason):
    with pytest.raises(BadImage, match=reason):
        decode_image(array)


def test_a_photo_does_not_follow_the_array_it_came_from():
    frame = np.zeros((4, 4, 3), np.uint8)
    photo = decode_image(frame)
    frame[:] = 9
    assert photo.pixels.max() == 0
    with pytest.raises(ValueError, match="read-only"):
        photo.pixels[0, 0] = 1


def test_pillow_images_of_every_mode_and_the_image_itself_untouched(images):
    base = Image.fromarray(images.scene())
    for mode in ("1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LA", "La", "RGBa", "RGBX", "I", "F", "PA"):
        image = base.convert("LA").convert("La") if mode == "La" else base.convert("RGBA").convert(mode)
        if mode == "F":
            image = image.point(lambda value: value / 255)
        before = image.tobytes(), image.mode, dict(image.info)
        photo = decode_image(image)
        assert photo.size_hw == (24, 36)
        assert (image.tobytes(), image.mode, dict(image.info)) == before


def test_an_opened_animation_keeps_its_place(images):
    image = Image.open(io.BytesIO(images.good["animated_gif"]().data))
    assert decode_image(image, frame=2).pixels[0, 0].tolist() == [80, 200, 175]
    assert image.tell() == 0
    with pytest.raises(BadImage, match="frame 1"):
        decode_image(images.bands()[0], frame=1)


@pytest.mark.parametrize(
    ("source", "error", "reason"),
    [
        ("https://example.org/a.jpg", UnsupportedImage, "web"),
        ("data:image/png;base64,AAAA", UnsupportedImage, "web"),
        ("no/such/file.png", BadImage, "no such file"),
        ("a\0b.png", BadImage, "cannot be read"),
        (io.StringIO("text"), BadImage, "'rb'"),
        (42, UnsupportedImage, "int"),
        (None, UnsupportedImage, "NoneType"),
    ],
)
def test_sources_that_are_none(source, error, reason):
    with pytest.raises(error, match=reason):
        decode_image(source)


def test_a_folder_and_a_pipe_are_no_images(tmp_path):
    with pytest.raises(BadImage, match="folder"):
        decode_image(tmp_path)
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(BadImage, match="no ordinary file"):
        decode_image(tmp_path / "pipe.png")


def test_a_name_cannot_break_the_line():
    with pytest.raises(BadImage) as caught:
        decode_image(b"", name="evil\n\x1b[31m.png")
    assert str(caught.value) == "evil\\n\\x1b[31m.png: the file is empty (0 bytes)."


@pytest.mark.skipif(find_spec("pillow_heif") is not None, reason="the extra [heic] is installed")
def test_heic_names_its_extra():
    data = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + struct.pack(">I", 28) + b"meta" + struct.pack(">I", 20) + b"ispe"
    with pytest.raises(UnsupportedImage, match=r"\[heic\]"):
        decode_image(data + struct.pack(">III", 0, 40, 30))


@pytest.mark.skipif(find_spec("pillow_heif") is None, reason="needs the extra [heic] (pillow-heif)")
def test_heic_with_its_extra(images):
    import pillow_heif

    upright = images.scene(60, 90)
    buffer = io.BytesIO()
    stored = Image.fromarray(np.ascontiguousarray(np.rot90(upright, 1)))
    pillow_heif.from_pillow(stored).save(buffer, quality=95, exif=images.exif(6))
    photo = decode_image(buffer.getvalue())
    assert np.abs(photo.pixels.astype(int) - upright).max() <= 24


# --- limits -----------------------------------------------------------------------------------------------------------


def test_limits_are_settings(images):
    data = images.encode(images.scene(30, 40), "PNG")
    for limits in (
        Limits(megapixels=0.001),
        Limits(side=39),
        Limits(decoded_bytes=30 * 40 * 8 - 1),
        Limits(file_bytes=len(data) - 1),
    ):
        with pytest.raises(ImageTooLarge):
            decode_image(data, limits=limits)
        with pytest.raises(ImageTooLarge):
            decode_image(io.BytesIO(data), limits=limits)
    exact = Limits(megapixels=0.0012, side=40, decoded_bytes=30 * 40 * 8, file_bytes=len(data))
    assert decode_image(data, limits=exact).size_hw == (30, 40)


def test_one_setting_opens_all_limits(images):
    """Raising the megapixels is enough: no other bound then stands in the way of an ordinary shape."""
    data = images.png(9_000, 3_000, 1, 0, bytes(3_000 * 1126))
    with pytest.raises(ImageTooLarge, match="max_megapixels"):
        decode_image(data)
    assert decode_image(data, limits=Limits(megapixels=30)).size_hw == (3_000, 9_000)


MEASURE = """
import resource, sys, time
from imagesmith.core.errors import BadImage, ImageTooLarge
from imagesmith.image.decode import decode_image
try: decode_image(b"GIF89a" + bytes(7))  # loads what decoding needs
except BadImage: pass
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[1:]:
    start = time.process_time()
    try: decode_image(path)
    except ImageTooLarge: print(time.process_time() - start)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_bombs_are_stopped_at_the_header(images, tmp_path):
    paths = []
    for name in ("bomb_png_60000", "bomb_png_13000", "bomb_png_one_bit", "bomb_gif", "bomb_webp", "bomb_tiff"):
        paths.append(tmp_path / name)
        paths[-1].write_bytes(images.bad[name]().data)
    done = subprocess.run([sys.executable, "-c", MEASURE, *paths], capture_output=True, text=True, check=True)
    *seconds, kilobytes = done.stdout.split()
    assert len(seconds) == len(paths)
    assert max(map(float, seconds)) < 0.05
    assert int(kilobytes) < 20_000


def test_believed_exif_would_cost_memory_and_is_not_believed(images, tmp_path):
    path = tmp_path / "overlaps.jpg"
    path.write_bytes(images.good["exif_full_of_overlaps"]().data)
    done = subprocess.run([sys.executable, "-c", MEASURE, path], capture_output=True, text=True, check=True)
    assert int(done.stdout.split()[-1]) < 20_000


# --- state and many files ---------------------------------------------------------------------------------------------


def test_nothing_global_changes(images):
    before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters)
    for maker in (*images.good.values(), *images.bad.values()):
        list(iter_photos(maker().data))
    assert (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters)) == before


def test_no_odd_file_makes_pillow_warn(images):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for maker in images.good.values():
            decode_image(maker().data)
    assert not seen


def test_threads_do_not_disturb_each_other(images):
    files = [maker().data for name, maker in images.good.items() if name.startswith(("jpeg", "png", "webp", "profile"))]
    alone = [decode_image(data).pixels for data in files]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda data: decode_image(data).pixels, files * 4))
    assert all(np.array_equal(alone[k % len(files)], pixels) for k, pixels in enumerate(together))


@pytest.mark.parametrize(
    "raised",
    [OSError, ValueError, TypeError, IndexError, KeyError, RuntimeError, MemoryError, SyntaxError, NotImplementedError]
    + [struct.error, Image.DecompressionBombError, EOFError, OverflowError, UserWarning],
)
def test_whatever_a_reader_raises_is_one_sentence(images, monkeypatch, raised):
    def fail(self):
        raise raised("internal detail")

    monkeypatch.setattr(readers.PngImageFile, "load", fail)
    with pytest.raises(BadImage) as caught:
        decode_image(images.encode(images.scene(), "PNG"), name="a.png")
    assert str(caught.value).startswith("a.png: ")
    assert "internal" not in str(caught.value)


def test_a_run_over_many_goes_on_past_the_bad_ones(images, tmp_path):
    (tmp_path / "a.png").write_bytes(images.encode(images.scene(), "PNG"))
    (tmp_path / "b.jpg").write_text("a letter")
    (tmp_path / "c.gif").write_bytes(images.encode(images.scene(), "GIF"))
    (tmp_path / "notes.txt").write_text("not taken from a folder")
    (tmp_path / ".hidden.png").write_bytes(b"")
    results = list(iter_photos([tmp_path, tmp_path / "gone.png", "http://example.org/x.png", images.scene()]))
    assert [type(result).__name__ for result in results] == [
        *("Photo", "UnsupportedImage", "Photo", "BadImage", "UnsupportedImage", "Photo")
    ]
    assert str(tmp_path / "b.jpg") in str(results[1])
    assert [type(result) for result in iter_photos(images.scene())] == [Photo]


def test_names_folders_and_patterns(tmp_path):
    for name in ("b.png", "a.JPG", "c.txt", "[odd].png", "deep/d.webp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")

    def names(*patterns: str) -> list[str]:
        return [path.name for path in find_images([str(tmp_path / pattern) for pattern in patterns])]

    assert names("") == ["[odd].png", "a.JPG", "b.png"]
    assert names("*.png", "b.png", "c.txt") == ["[odd].png", "b.png", "c.txt"]
    assert names("**/*.webp") == ["d.webp"]
    assert names("[odd].png") == ["[odd].png"]
    assert names("gone.png") == ["gone.png"]
    assert find_images(Path("x.png")) == [Path("x.png")]
    with pytest.raises(BadInput, match="no file matches"):
        names("*.gif")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="holds no images"):
        names("empty")
    with pytest.raises(UnsupportedImage, match="web"):
        find_images("https://example.org/a.png")


def test_open_header_reads_no_pixel(images):
    assert open_header(images.encode(images.scene(), "PNG")).size == (36, 24)
    with pytest.raises(ImageTooLarge, match="image: it has 60000"):
        open_header(images.bad["bomb_png_60000"]().data)


# --- fuzz -------------------------------------------------------------------------------------------------------------


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    kind, size = rng.integers(4), len(data)
    if kind == 0:
        return data[: rng.integers(size + 1)]
    out = bytearray(data)
    if kind == 3 and size > 8:  # move a piece: lengths and offsets then lie
        start, stop = sorted(rng.integers(0, size, 2))
        place = rng.integers(size)
        return bytes(out[:place] + out[start : min(stop, start + 200)] + out[place:])
    span = min(size, 64) if kind == 1 else size  # headers are where the trouble is
    for place in rng.integers(0, span, rng.integers(1, 8)):
        out[place] = rng.choice([0, 1, 0x7F, 0x80, 0xFE, 0xFF, rng.integers(256)])
    return bytes(out)


def fuzz(images, count: int, seed: int) -> tuple[int, float]:
    rng = np.random.default_rng(seed)
    seeds = [data for maker in images.good.values() if len(data := maker().data) < 30_000]
    decoded, slowest = 0, 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for index in range(count):
            data = mutate(seeds[index % len(seeds)], rng)
            start = time.process_time()
            with suppress(BadImage):
                decoded += decode_image(data).pixels.ndim == 3
            slowest = max(slowest, time.process_time() - start)
    return decoded, slowest


def test_mutated_files_decode_or_are_refused(images):
    decoded, slowest = fuzz(images, 300, seed=1)
    assert 30 < decoded < 280
    assert slowest < 1


@pytest.mark.slow
def test_twenty_thousand_mutated_files(images):
    decoded, slowest = fuzz(images, 20_000, seed=2)
    assert 2_000 < decoded < 18_000
    assert slowest < 5
