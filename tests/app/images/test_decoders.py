"""Behaviour of app.images.decoders: the decoder processes, and the images that they decode."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.errors import BrokenImageError, EmptyUploadError, ImageTooLargeError, UnsupportedImageError
from app.images.decode import FORMATS
from app.images.decoders import Decoders
from tests.app.pictures import SIZE, decode, encode, make_halves
from tests.app.process import ROOT, is_running, list_children, wait_until

pytestmark = pytest.mark.anyio
PICTURE = encode(make_halves((640, 480)), "JPEG")


@pytest.fixture
def restarts() -> list[str]:
    return []


@pytest.fixture
def make_decoders(restarts: list[str]) -> Iterator[Callable[..., Decoders]]:
    made = []

    def make(count: int = 1, **options: object) -> Decoders:
        limits = {"max_pixels": 1_000_000, "max_bytes": 2**24, "timeout_seconds": 20.0} | options
        made.append(Decoders(count, **limits, observe_restart=restarts.append))
        return made[-1]

    yield make
    for decoders in made:
        decoders.close()


def list_processes(decoders: Decoders) -> list[int]:
    """Return the decoder processes of a pool."""
    return list_children(decoders._forker.pid) if decoders._forker else []


@pytest.mark.parametrize("kind", FORMATS)
async def test_a_decoder_returns_the_pixels(make_decoders, kind):
    """In every format, to an event loop and to threads."""
    decoders = make_decoders()
    data = encode(Image.effect_noise((200, 100), 90).convert("RGB"), kind)
    pixels = await decoders.decode(data, (8, 6))
    assert (pixels.shape, pixels.dtype) == ((8, 6, 3), np.uint8)
    np.testing.assert_array_equal(pixels, decode(data, (8, 6)))
    np.testing.assert_array_equal(pixels, await asyncio.to_thread(decoders.decode_blocking, data, (8, 6)))
    assert len(list_processes(decoders)) == 1


async def test_a_decoder_returns_the_error_of_an_image(make_decoders, restarts):
    """In the words of `decode_image`. The process continues."""
    decoders = make_decoders()
    for data, kind, said in [
        (PICTURE[:3000], BrokenImageError, "damaged or cut short"),
        (b"no image at all", UnsupportedImageError, "JPEG, PNG, WebP, GIF, BMP, AVIF"),
        (encode(Image.new("L", (2000, 1000)), "PNG"), ImageTooLargeError, "2000 x 1000"),
        (b"", EmptyUploadError, "empty"),
    ]:
        with pytest.raises(kind, match=said):
            await decoders.decode(data, SIZE)
        with pytest.raises(kind, match=said):
            await asyncio.to_thread(decoders.decode_blocking, data, SIZE)
    assert (await decoders.decode(PICTURE, SIZE)).shape == (*SIZE, 3)
    assert restarts == []


async def test_simple_images_are_decoded_without_a_decoder(make_decoders):
    """Sending them to a process would take longer than decoding."""
    decoders = make_decoders()
    noise = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    np.testing.assert_array_equal(await decoders.decode(encode(Image.fromarray(noise), "PNG"), SIZE), noise)
    assert list_processes(decoders) == []


async def test_an_image_that_takes_too_long_affects_no_other(make_decoders, restarts):
    """Its process is killed at the deadline and replaced."""
    decoders = make_decoders(2, timeout_seconds=1.0)
    await asyncio.gather(*(decoders.decode(PICTURE, SIZE) for _ in range(2)))
    stuck, _ = list_processes(decoders)
    os.kill(stuck, signal.SIGSTOP)
    answers = await asyncio.gather(*(decoders.decode(PICTURE, SIZE) for _ in range(8)), return_exceptions=True)
    (failure,) = [answer for answer in answers if isinstance(answer, Exception)]
    assert isinstance(failure, ImageTooLargeError)
    assert "decoding the image takes over 1 s; make it smaller" in str(failure)
    assert restarts == ["deadline"]
    await asyncio.to_thread(wait_until, lambda: not is_running(stuck))


async def test_a_crash_affects_only_its_image(make_decoders, restarts):
    """The next image gets a new process."""
    decoders = make_decoders()
    await decoders.decode(PICTURE, SIZE)
    (process,) = list_processes(decoders)
    os.kill(process, signal.SIGSTOP)
    task = asyncio.create_task(decoders.decode(PICTURE, SIZE))
    await asyncio.sleep(0.05)
    os.kill(process, signal.SIGKILL)
    with pytest.raises(BrokenImageError, match="the image can't be decoded"):
        await task
    assert (await decoders.decode(PICTURE, SIZE)).shape == (*SIZE, 3)
    assert restarts == ["crash"]


async def test_a_decoder_that_dies_while_idle_is_replaced(make_decoders, restarts):
    """For example if the kernel ran out of memory."""
    decoders = make_decoders()
    await decoders.decode(PICTURE, SIZE)
    (process,) = list_processes(decoders)
    os.kill(process, signal.SIGKILL)
    await asyncio.to_thread(wait_until, lambda: not is_running(process))
    assert (await decoders.decode(PICTURE, SIZE)).shape == (*SIZE, 3)
    assert restarts == []


async def test_an_image_is_limited_in_memory(make_decoders, restarts):
    """A process that reaches the limit is replaced, because libraries may leak then."""
    decoders = make_decoders(max_pixels=2**24, max_bytes=2**10)
    print_colours = encode(Image.new("CMYK", (4000, 4000)), "JPEG", progressive=True, subsampling=0)
    with pytest.raises(ImageTooLargeError, match="takes too much memory; make it smaller"):
        await decoders.decode(print_colours, SIZE)
    assert restarts == ["memory"]
    assert (await decoders.decode(PICTURE, SIZE)).shape == (*SIZE, 3)


async def test_a_cancelled_image_frees_its_decoder(make_decoders, restarts):
    """Whatever the decoder was doing."""
    decoders = make_decoders()
    await decoders.decode(PICTURE, SIZE)
    (process,) = list_processes(decoders)
    os.kill(process, signal.SIGSTOP)
    task = asyncio.create_task(decoders.decode(PICTURE, SIZE))
    waiting = asyncio.create_task(decoders.decode(PICTURE, SIZE))
    await asyncio.sleep(0.05)
    task.cancel()
    assert (await waiting).shape == (*SIZE, 3)
    assert restarts == ["cancelled"]
    assert process not in list_processes(decoders)


async def test_an_image_cancelled_before_its_turn_uses_no_decoder(make_decoders, restarts):
    """It has no process yet."""
    decoders = make_decoders()
    tasks = [asyncio.create_task(decoders.decode(PICTURE, SIZE)) for _ in range(5)]
    await asyncio.sleep(0)
    for task in tasks[2:4]:
        task.cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(result, asyncio.CancelledError) for result in done] == [False, False, True, True, False]
    assert restarts == []


async def test_the_forking_process_is_replaced(make_decoders, restarts):
    """If it dies, all decoders end too, and the next image starts a new one."""
    decoders = make_decoders()
    await decoders.decode(PICTURE, SIZE)
    (process,) = list_processes(decoders)
    decoders._forker.kill()
    await asyncio.to_thread(wait_until, lambda: not is_running(process))
    assert (await decoders.decode(PICTURE, SIZE)).shape == (*SIZE, 3)
    assert restarts == []


def test_each_thread_has_a_decoder(make_decoders):
    """So that all cores decode."""
    decoders = make_decoders(2)
    with ThreadPoolExecutor(2) as threads:
        results = list(threads.map(lambda _: decoders.decode_blocking(PICTURE, SIZE), range(20)))
    assert len({result.tobytes() for result in results}) == 1
    assert len(list_processes(decoders)) <= 2


def test_the_deadline_applies_to_threads(make_decoders, restarts):
    """The thread continues with a new process."""
    decoders = make_decoders(timeout_seconds=0.5)
    decoders.decode_blocking(PICTURE, SIZE)
    os.kill(list_processes(decoders)[0], signal.SIGSTOP)
    with pytest.raises(ImageTooLargeError, match=r"over 0\.5 s"):
        decoders.decode_blocking(PICTURE, SIZE)
    decoders.decode_blocking(PICTURE, SIZE)
    assert restarts == ["deadline"]


def test_a_decoder_can_open_no_file_or_socket(make_decoders):
    """It has the socket to the service, and standard streams that lead to /dev/null."""
    decoders = make_decoders()
    decoders.decode_blocking(PICTURE, SIZE)
    (process,) = list_processes(decoders)
    descriptors = {path.name: str(path.readlink()) for path in Path(f"/proc/{process}/fd").iterdir()}
    assert sorted(descriptors) == ["0", "1", "2", "3"]
    assert [descriptors[name] for name in "012"] == ["/dev/null"] * 3
    assert descriptors["3"].startswith("socket:")
    limits = Path(f"/proc/{process}/limits").read_text()
    assert re.search(r"Max open files +4 +4 ", limits)
    assert re.search(r"Max file size +0 +0 ", limits)
    assert "NoNewPrivs:\t1" in Path(f"/proc/{process}/status").read_text()


def test_decoders_do_not_inherit_the_settings(make_decoders, monkeypatch):
    """Which contain the API keys."""
    monkeypatch.setenv("APP_API_KEYS", "a-key-of-enough-characters")
    decoders = make_decoders()
    decoders.decode_blocking(PICTURE, SIZE)
    (process,) = list_processes(decoders)
    assert b"APP_" not in Path(f"/proc/{process}/environ").read_bytes()


def test_all_decoders_end_with_the_service():
    """Even if it is killed while an image never finishes decoding."""
    code = (
        "import time, sys\n"
        "from app.images.decoders import Decoders\n"
        "decoders = Decoders(1, max_pixels=10**6, max_bytes=10**6, timeout_seconds=60)\n"
        "decoders.decode_blocking(sys.stdin.buffer.read(), (8, 8))\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    owner.stdin.write(PICTURE)
    owner.stdin.close()
    assert owner.stdout.readline() == b"ready\n"
    (forker,) = list_children(owner.pid)
    (decoder,) = list_children(forker)
    os.kill(decoder, signal.SIGSTOP)
    owner.kill()
    owner.wait()
    owner.stdout.close()
    wait_until(lambda: not is_running(forker) and not is_running(decoder))


def test_the_services_process_loads_no_library_for_heic():
    """The library is large, and only decoders need it."""
    code = "import sys, app.main; print('pillow_heif' in sys.modules, '_pillow_heif' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def make_varieties() -> list[bytes]:
    """Make a file of each kind that Pillow decodes in its own way."""
    picture, exif = make_halves((64, 48)), Image.Exif()
    exif[0x0112] = 6
    return [
        *(encode(picture, kind, exif=exif.tobytes()) for kind in ("JPEG", "PNG", "WEBP", "AVIF", "HEIF")),
        *(
            encode(picture, kind, save_all=True, append_images=[picture])
            for kind in ("GIF", "PNG", "WEBP", "AVIF", "MPO")
        ),
        *(encode(picture.convert(mode), "PNG") for mode in ("1", "L", "LA", "P", "RGBA", "I;16")),
        *(encode(picture.convert(mode), "BMP") for mode in ("1", "L", "P", "RGB", "RGBA")),
        *(encode(picture.quantize(4), kind, transparency=0) for kind in ("GIF", "PNG")),
        encode(picture.convert("CMYK"), "JPEG", icc_profile=b"x", comment=b"x", progressive=True),
        encode(Image.new("I;16", (9, 9)), "PNG", transparency=0),
        b"no image",
        PICTURE[:3000],
    ]


def test_a_decoder_imports_nothing_while_it_decodes(tmp_path):
    """It can't open the file of a module any more."""
    code = (
        "import sys, app.images.worker as worker\n"
        "worker.read_heic()\n"
        "from pathlib import Path\n"
        "before = set(sys.modules)\n"
        "for name in sys.argv[1:]:\n"
        "    try: worker.decode_image(Path(name).read_bytes(), (32, 32), max_pixels=10**6)\n"
        "    except worker.ImageError: pass\n"
        "print(sorted(set(sys.modules) - before))\n"
    )
    varieties = make_varieties()
    for number, data in enumerate(varieties):
        (tmp_path / str(number)).write_bytes(data)
    names = [str(tmp_path / str(number)) for number in range(len(varieties))]
    done = subprocess.run([sys.executable, "-c", code, *names], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
