"""Presets: one short file each, with `get_config()`, or `get_config(size)` for `FILE.py:SIZE` on the command line."""

from convnext import ConvNeXtV2
from experiments.errors import UserError


def check_size(size, preset):
    """Raises UserError unless a preset is named with one of the published sizes of ConvNeXt V2.

    Args:
        size: the text after the colon; empty without one.
        preset: name of the preset.
    """
    if size not in ConvNeXtV2.MODEL_VARIANTS:
        given = f"{size!r} is none of its sizes" if size else "it needs a size"
        raise UserError(
            f"{preset}: {given}; name one of {', '.join(ConvNeXtV2.MODEL_VARIANTS)}, such as "
            f"--config=experiments/presets/{preset}.py:atto."
        )
