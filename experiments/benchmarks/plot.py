"""A picture of what a training step costs as more patches are hidden."""

from matplotlib import figure

from experiments.config import size_text


def draw_mask_ratios(path, results):
    """Draws the time of a step over the share of visible patches, a curve for each contender.

    The band holds the middle half of the rounds.

    Args:
        path: of the PNG file.
        results: what `experiments.benchmarks.step.run` returns, for two or more mask ratios.
    """
    tables = sorted(results["tables"], key=lambda table: table["num_visible"])
    shares = [table["num_visible"] / table["num_patches"] for table in tables]
    picture = figure.Figure(figsize=(7, 4.5), layout="constrained")
    axes = picture.add_subplot()
    for name in tables[0]["contenders"]:
        seconds = [table["contenders"][name]["seconds_per_step"] for table in tables]
        milliseconds = [1000 * value["median"] for value in seconds]
        (line,) = axes.plot(shares, milliseconds, marker="o", label=name)
        lower, upper = ([1000 * value[bound] for value in seconds] for bound in ("lower_quartile", "upper_quartile"))
        axes.fill_between(shares, lower, upper, color=line.get_color(), alpha=0.2, linewidth=0)
    settings = results["settings"]
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0)
    axes.set_xlabel("share of visible patches")
    axes.set_ylabel("milliseconds a training step")
    axes.set_title(f"{_model(settings)}, {settings['batch_size']} images of {size_text(settings['image_size'])} pixels")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    picture.savefig(path, dpi=120)


def _model(settings):
    return f"depths {settings['depths']}, dims {settings['dims']}" if settings["depths"] else settings["variant"]
