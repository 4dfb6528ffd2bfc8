"""Measures how one client's photos slow down other clients' small images, and the CPU time of a photo."""

from dataclasses import dataclass
from statistics import median

from benchmarks.comparison import WARM_UP_SECONDS
from benchmarks.pictures import PHOTO, SMALL, Known, make_pictures
from benchmarks.process import running
from benchmarks.services import Service
from benchmarks.wrk import Load, load

SMALL_CLIENTS = 8


@dataclass(frozen=True)
class PhotoCost:
    """Medians over the rounds."""

    small_p50_ms: float  # without photos
    small_p50_beside_photos_ms: float
    photos_per_second: float  # beside the small images
    cpu_ms_per_photo: float  # without small images
    photo_bytes: int

    def render(self) -> str:
        """Render as Markdown."""
        return (
            f"{SMALL_CLIENTS} clients send small images, and one sends 12-megapixel JPEGs of"
            f" {self.photo_bytes / 1e6:.1f} MB ({self.photos_per_second:.0f} per second). The median latency of the"
            f" small images is {self.small_p50_beside_photos_ms:.1f} ms, and {self.small_p50_ms:.1f} ms without the"
            f" photos. A photo takes {self.cpu_ms_per_photo:.1f} ms of CPU time.\n"
        )


def measure_photos(service: Service, known: Known, *, seconds: int, rounds: int) -> PhotoCost:
    """Load the service with small images, with both, and with photos, in turn.

    Raises:
        LeftOutError: the service can't start.
    """
    small, photos = make_pictures(SMALL), make_pictures(PHOTO)
    without, beside, per_second, cpu = [], [], [], []
    with running(service) as process:
        process.wait_until_right(known)
        load(process.url, small, "form", clients=SMALL_CLIENTS, seconds=WARM_UP_SECONDS)
        load(process.url, photos, "form", clients=1, seconds=WARM_UP_SECONDS)
        for _ in range(rounds):
            without.append(load(process.url, small, "form", clients=SMALL_CLIENTS, seconds=seconds).p50_ms)
            photo_load = Load(process.url, photos, "form", clients=1, seconds=seconds)
            beside.append(load(process.url, small, "form", clients=SMALL_CLIENTS, seconds=seconds).p50_ms)
            per_second.append(photo_load.wait().per_second)
            before = process.read_cpu_seconds()
            alone = load(process.url, photos, "form", clients=1, seconds=seconds)
            cpu.append((process.read_cpu_seconds() - before) / alone.requests)
    photo_bytes = round(median(map(len, photos)))
    return PhotoCost(median(without), median(beside), median(per_second), 1000 * median(cpu), photo_bytes)
