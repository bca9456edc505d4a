"""What the soak test shows a person."""


def header():
    """Returns the heading of the table of kills."""
    return f"{'kill':>4}  {'went on from':>12}  {'at step':>7}  what was under way, and what was damaged"


def row(number, record):
    """Returns the line of the table for one kill.

    Args:
        number: of the kill, from 1.
        record: its dictionary.
    """
    damage = f"; {record['damage']}" if record["damage"] else ""
    return f"{number:>4}  {record['resumed_from']:>12,}  {record['step']:>7,}  {record['under_way']}{damage}"


def verdict(results):
    """Returns the lines that say what came of it."""
    saving = sum(record["moment"] in ("saving", "stopping") for record in results["kills"])
    damaged = sum(record["damage"] is not None for record in results["kills"])
    compared = ", ".join(f"{count:,} {kind}" for kind, count in results["compared"].items())
    lines = [
        "",
        f"{len(results['kills'])} kills, {saving} of them while a checkpoint was written; {damaged} checkpoints "
        f"damaged; {results['seconds']:,.0f} s in all",
        f"compared: {compared}",
        *(f"  {finding}" for finding in results["findings"]),
    ]
    if not results["findings"]:
        lines.append("The run that was killed came to the same as the undisturbed one, bit for bit.")
    return lines
