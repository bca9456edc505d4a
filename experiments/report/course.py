"""How far a run has come, and how long it has taken."""

import datetime
import math
import statistics

from experiments.training.tracking import is_number

UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def state(run):
    """Returns in words how a `RecordedRun` stands."""
    if run.summary:
        return "complete"
    done, total = steps_done(run), total_steps(run)
    last = run.segments[-1] if run.segments else {}
    at = f"step {done:,}" + (f" of {total:,}" if total else "")
    if total and done >= total:
        return f"{at} is done, but its final evaluation is missing"
    if last.get("ended"):
        return f"stopped at {at}"
    seen = f", last seen {clock(last['last_seen'])}" if clock(last.get("last_seen")) else ""
    return f"under way or killed at {at}{seen}"


def steps_done(run):
    """Returns the number of steps that are on record."""
    known = [run.summary.get("steps"), run.latest("step"), *(one.get("to_step") for one in run.segments[-1:])]
    return max((steps for steps in known if type(steps) is int), default=0)


def total_steps(run):
    """Returns the number of steps of the whole run, or None where that is not known."""
    known = [run.summary.get("steps"), *(one.get("total_steps") for one in reversed(run.segments))]
    return next((steps for steps in known if type(steps) is int), None)


def epochs_done(run):
    """Returns the number of epochs that are done, or None where that is not known."""
    steps = steps_of_an_epoch(run)
    return steps_done(run) / steps if steps else None


def steps_of_an_epoch(run):
    """Returns the number of steps of an epoch, or None where that is not known."""
    ratios = (line["step"] / line["epoch"] for line in run.metrics if line.get("epoch", 0) > 0)
    return next((ratio for ratio in ratios if ratio), None)


def num_images(run):
    """Returns the number of training images, or None where that is not known."""
    return next((one["images"] for one in (run.summary, *reversed(run.segments)) if "images" in one), None)


def seconds_taken(run):
    """Returns the seconds of all segments of a run, or None where they are not on record."""
    if not run.segments:
        seconds = number(run.summary.get("seconds"))
        return seconds if seconds is not None and math.isfinite(seconds) else None
    seconds = [segment_seconds(segment) for segment in run.segments]
    whole = run.segments[0].get("from_step") == 0 and None not in seconds
    return sum(seconds) if whole else None


def segment_seconds(segment):
    """Returns the seconds between the start of a segment and its end, or when it was last seen; None if unknown."""
    times = [_time(segment.get("started")), _time(segment.get("ended")) or _time(segment.get("last_seen"))]
    return None if None in times else (times[1] - times[0]).total_seconds()


def images_per_second(run):
    """Returns the median over the lines of metrics, or None."""
    rates = [line["images_per_second"] for line in run.metrics if "images_per_second" in line]
    return statistics.median(rates) if rates else None


def duration(seconds):
    """Returns a duration in words: its two largest units."""
    seconds = round(seconds)
    parts = []
    for size, unit in UNITS:
        count, seconds = divmod(seconds, size)
        if count or parts:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) or "0 s"


def clock(text):
    """Returns a recorded time as a person reads it, in UTC; empty if it is none."""
    time = _time(text)
    return time.astimezone(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC") if time else ""


def number(value):
    """Returns a value that was read if it is a number, or else None."""
    return value if is_number(value) else None


def _time(text):
    try:
        time = datetime.datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return time if time.tzinfo else None
