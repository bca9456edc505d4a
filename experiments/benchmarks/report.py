"""The figures of the benchmark of training steps, as lines of text, and lines of other benchmarks."""

from statistics import median

from experiments.config import size_text

BUSY_CORES = 0.2  # of others, from which on a turn is spoiled

NAME_WIDTH = 26  # of the longest name of a contender

HEADER = (
    f"  {'':<{NAME_WIDTH}} {'images/s':>9} {'(lowest - highest)':>21} {'GFLOP/step':>11} {'GFLOP/s':>9}"
    f" {'of product':>10}"
    f" {'peak MiB':>9} {'above import':>12}"
)


def opening_lines(settings, results):
    """Returns the lines that say what is measured, on what and with what.

    Args:
        settings: `StepSettings`.
        results: `provenance()`.
    """
    model = f"depths {settings.depths}, dims {settings.dims}" if settings.depths else settings.variant
    return [
        "benchmark of training steps: forward, backward, AdamW",
        f"  model     {model}, decoder {settings.decoder_dim}",
        f"  images    {settings.batch_size} of {size_text(settings.image_size)} a step",
        f"  backend   {settings.backend}, {settings.precision}",
        f"  rounds    {settings.rounds} of {settings.steps} steps a contender, after {settings.warmup} to warm up",
        *circumstance_lines(results),
    ]


def circumstance_lines(results):
    """Returns the lines that say on what and with what was measured; `results` holds `provenance()`."""
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    changes = " and uncommitted changes" if results["uncommitted_changes"] else ""
    return [
        f"  cpu       {results['hardware']['cpu']}, {results['hardware']['cores']} cores",
        f"  versions  {versions}",
        f"  commit    {results['commit'] or 'unknown'}{changes}",
    ]


def table_lines(table):
    """Returns the lines that show a result of `experiments.benchmarks.step.measure`."""
    contenders, ratios = table["contenders"], table["ratios"]
    devices = ", ".join(dict.fromkeys(figures["device"] for figures in contenders.values()))
    hidden = table["num_patches"] - table["num_visible"]
    return [
        f"mask ratio {table['mask_ratio']:.4g}: {hidden} of {table['num_patches']} patches hidden, on {devices}",
        *(
            ["  (no step exists at ratio 0: without a hidden patch there is no loss)"]
            * (not table["requested_mask_ratio"])
        ),
        HEADER,
        *(_contender_line(name, figures) for name, figures in contenders.items()),
        *(
            f"  {name:<{NAME_WIDTH}} {spread(figures, '.2f')} times as fast"
            for name, figures in ratios.items()
            if not name.startswith("without")
        ),
        f"  large matrix product: {table['matrix_product_flops_per_second'] / 1e9:,.0f} GFLOP/s",
        *load_lines(contenders),
        *(f"  {figures['note']}" for figures in contenders.values() if figures["note"]),
    ]


def load_lines(contenders):
    """Says how busy the machine was with other things, where that is known."""
    loads = [load for figures in contenders.values() for load in figures["others_cores"] if load is not None]
    if not loads:
        return []
    advice = "; measure again when nothing else runs" if max(loads) > BUSY_CORES else ""
    return [f"  other processes: {median(loads):.2f} cores in the median turn, {max(loads):.2f} at most{advice}"]


def _contender_line(name, figures):
    speed, memory = figures["images_per_second"], figures["memory"]
    spread = f"({speed['smallest']:,.2f} - {speed['largest']:,.2f})"
    if memory["device_peak"] is None:
        peak, above = memory["resident_peak"], memory["resident_peak"] - memory["resident_after_import"]
        needed = f"{peak / 2**20:9,.0f} {above / 2**20:12,.0f}"
    else:
        needed = f"{memory['device_peak'] / 2**20:9,.0f} {'(device)':>12}"
    return (
        f"  {name:<{NAME_WIDTH}} {speed['median']:9,.2f} {spread:>21} {figures['flops_per_step']['total'] / 1e9:11,.2f}"
        f" {figures['flops_per_second'] / 1e9:9,.1f} {figures['share_of_matrix_product']:10.1%} {needed}"
    )


def spread(figures, form):
    """Returns the text of a median with the smallest and the largest."""
    return f"{figures['median']:{form}} ({figures['smallest']:{form}} - {figures['largest']:{form}})"
