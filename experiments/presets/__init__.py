"""Presets: one short file each, with `get_config()`."""
