"""Training over several devices and hosts."""
