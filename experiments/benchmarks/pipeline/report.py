"""The figures of the benchmark of the input pipeline, as lines of text."""

from experiments.benchmarks.pipeline import photographs
from experiments.benchmarks.pipeline.settings import PILLOW_CONTENDERS
from experiments.benchmarks.report import circumstance_lines, load_lines, spread
from experiments.config import size_text

WIDTH = 20


def opening_lines(settings, results):
    """Returns the lines that say what is measured, on what and with what.

    Args:
        settings: `InputSettings`.
        results: `provenance()` with `mean_file_bytes`.
    """
    files = f"{settings.files} JPEG files of {photographs.WIDTH}x{photographs.HEIGHT}"
    cores = f"{settings.cores} of the cores" if settings.cores else "all cores"
    return [
        "benchmark of the input pipeline",
        f"  files     {files}, {results['mean_file_bytes'] / 1e3:.1f} kB on average",
        f"  images    {size_text(settings.image_size)}, batches of {settings.batch_size}, on {cores}",
        f"  rounds    {settings.rounds} of {settings.steps} batches a contender, after {settings.warmup} to warm up",
        *circumstance_lines(results),
    ]


def table_lines(results):
    """Returns the lines that show what `experiments.benchmarks.pipeline.measure` puts together."""
    columns = "".join(f" {'x ' + name:>20}" for name in PILLOW_CONTENDERS)
    return [
        f"  {'':<{WIDTH}} {'images/s':>9} {'(lowest - highest)':>20} {'per core':>9} {'core ms':>8}{columns}",
        *(_contender_line(name, figures) for name, figures in results["contenders"].items()),
        *load_lines(results["contenders"]),
    ]


def _contender_line(name, figures):
    speed = figures["images_per_second"]
    limits = f"({speed['smallest']:,.1f} - {speed['largest']:,.1f})"
    ratios = "".join(f" {spread(figures['times_as_fast'][other], '.2f'):>20}" for other in PILLOW_CONTENDERS)
    per_core = figures["images_per_second_per_core"]["median"]
    work = figures["core_seconds_per_image"]["median"]
    return f"  {name:<{WIDTH}} {speed['median']:9,.1f} {limits:>20} {per_core:9,.1f} {work * 1e3:8.3f}{ratios}"
