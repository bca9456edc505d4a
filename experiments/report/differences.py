"""In which fields the configurations of runs differ."""

from experiments.report.reading import TASKS

NOT_RECORDED, NOT_USED = object(), object()  # in place of a value: of an older run; of a field of the other task


def differing_fields(runs):
    """Returns the fields in which runs differ.

    A field that a run does not use, such as `finetune.epochs` in pretraining, is no difference, nor is one that it
    does not have because it was made before there was such a field.

    Args:
        runs: `RecordedRun`s.

    Returns:
        `{dotted name: [value of each run, NOT_RECORDED or NOT_USED]}`, in the order of the configuration.
    """
    fields = [_flatten(run.config) for run in runs]
    names = dict.fromkeys(name for one in fields for name in one)
    rows = {name: [_value(run, one, name) for run, one in zip(runs, fields)] for name in names}
    return {name: values for name, values in rows.items() if len(_different(values)) > 1}


def _value(run, fields, name):
    section = name.partition(".")[0]
    if section in TASKS and section != run.task:
        return NOT_USED
    return fields.get(name, NOT_RECORDED)


def _different(values):
    different = []  # JSON's values cannot all be put into a set
    for value in values:
        if value not in (NOT_RECORDED, NOT_USED) and value not in different:
            different.append(value)
    return different


def _flatten(values, prefix=""):
    flat = {}
    for name, value in values.items():
        flat.update(_flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value})
    return flat
