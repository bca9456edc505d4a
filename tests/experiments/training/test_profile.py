"""A profile of some steps, also of runs that are resumed between or after them."""

import pytest
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from experiments import pretrain
from experiments.errors import UserError
from tests.experiments.tiny import Lines, picture_config

STEPS = 6


class CrashError(Exception):
    """What nobody expects."""


def crash():
    raise CrashError


def config(pictures, *profile_steps):
    return picture_config(pictures, pretrain={"steps": STEPS}, checkpoint_every=3, profile_steps=profile_steps)


def profiled_steps(workdir):
    """The steps of each profile of a run, the oldest profile first."""
    profiles = []
    for path in sorted(workdir.glob("profile/plugins/profile/*/*.xplane.pb")):
        space = xplane_pb2.XSpace.FromString(path.read_bytes())
        profiles.append([_step(plane, event) for plane in space.planes for event in _events(plane)])
    return profiles


def _events(plane):
    for line in plane.lines:
        yield from (event for event in line.events if plane.event_metadata[event.metadata_id].name == "train")


def _step(plane, event):
    (step,) = (s.int64_value for s in event.stats if plane.stat_metadata[s.metadata_id].name == "step_num")
    return step


def test_a_run_that_is_resumed_after_its_profile_makes_no_other(pictures, tmp_path, at_step):
    lines = Lines()
    at_step(5, crash)
    with pytest.raises(CrashError):
        pretrain.run(config(pictures, 2, 3), tmp_path, log=lines)
    folder = tmp_path / "profile"
    assert f"profile written to {folder}: view it with tensorboard --logdir={folder}" in lines
    at_step(0, None)
    assert pretrain.run(config(pictures, 2, 3), tmp_path, log=Lines())["steps"] == STEPS
    assert profiled_steps(tmp_path) == [[2, 3]]


def test_a_run_that_is_resumed_within_its_profile_profiles_the_rest(pictures, tmp_path, at_step):
    at_step(6, crash)
    with pytest.raises(CrashError):
        pretrain.run(config(pictures, 1, 8), tmp_path, log=Lines())
    at_step(0, None)
    pretrain.run(config(pictures, 1, 8), tmp_path, log=Lines())
    assert profiled_steps(tmp_path) == [[1, 2, 3, 4, 5, 6], [4, 5, 6]]  # step 6 of the first failed


def test_steps_beyond_the_end_are_a_mistake(pictures, tmp_path):
    with pytest.raises(UserError, match="^profile_steps=7,9 is beyond the end of the run at step 6.$"):
        pretrain.run(config(pictures, 7, 9), tmp_path, log=Lines())
