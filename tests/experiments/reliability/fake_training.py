"""Stands for a training run where a test is of what watches it: as quick as Python starts, with files of the same form.

python fake_training.py WORKDIR STEPS CHECKPOINT_EVERY [forgetful] [silent] [leaking]
    forgetful: begins anew whatever there is; silent: says nothing of damage; leaking: keeps 64 KiB a step.
"""

import hashlib
import json
import pathlib
import signal
import sys
import time

SECONDS_OF_A_STEP, SECONDS_OF_A_FILE = 0.004, 0.006
PARTS = (".data-00000-of-00001", ".index")
KEEP = 3

workdir, total, every, faults = pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
folder, metrics = workdir / "checkpoints", workdir / "metrics.jsonl"
stop = []


def checksums(step):
    files = [folder / f"ckpt-{step}{part}" for part in PARTS]
    return "".join(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files)


def is_sound(step):
    try:
        return (folder / f"ckpt-{step}.sha256").read_text(encoding="utf-8") == checksums(step)
    except (OSError, UnicodeDecodeError):
        return False


def saved_steps():
    return sorted({int(path.name.partition(".")[0].removeprefix("ckpt-")) for path in folder.glob("ckpt-*.*")})


def resume():
    for step in reversed(saved_steps()):
        if "forgetful" not in faults and is_sound(step):
            return step
        if "silent" not in faults:
            print(f"checkpoint {folder}/ckpt-{step} is damaged", flush=True)
    return 0


def save(step):
    (folder / f"ckpt-{step}.sha256").unlink(missing_ok=True)
    for part in PARTS:
        (folder / f"ckpt-{step}{part}").write_bytes(f"{step}{part}".encode() * 100)
        time.sleep(SECONDS_OF_A_FILE)
    (folder / f"ckpt-{step}.sha256").write_text(checksums(step), encoding="utf-8")
    for old in saved_steps()[:-KEEP]:
        for file in folder.glob(f"ckpt-{old}.*"):
            file.unlink()


folder.mkdir(parents=True, exist_ok=True)
signal.signal(signal.SIGTERM, lambda *_: stop.append(True))
start = resume()
print("  starts from   " + (f"its own checkpoint of step {start:,}" if start else "random weights"), flush=True)
lines = metrics.read_text(encoding="utf-8").splitlines()[:start] if metrics.exists() else []
metrics.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
kept = []
for step in range(start + 1, total + 1):
    time.sleep(SECONDS_OF_A_STEP)
    kept.append(bytearray(b"x" * 65536) if "leaking" in faults else None)
    with open(metrics, "a", encoding="utf-8") as file:
        file.write(json.dumps({"step": step, "loss": 1 / step}) + "\n")
    if stop or step == total or step % every == 0:
        save(step)
    if stop:
        sys.exit(0)
time.sleep(0.5)  # what a run writes at its end takes time
