"""Command-line programs, `python -m launch.NAME`."""
