"""Meta-World's own environments at twice the speed, with the same results bit for bit.

Four fifths of an official step are Python code. It looks arrays up by name, walks contacts one object at a time, and
joins observations from many small pieces. It also computes a quaternion with a determinant and an orthogonality test.

`accelerated` derives a class from an official one. The derived class reads its numbers from views of MuJoCo's memory
(`_Cached`). The official functions, above all the rewards, run with their own code. Only the library functions that
they call are replaced by functions that do the same arithmetic on plain floats (`_REPLACEMENTS`). Nothing is patched:
the official classes can be used at the same time.
"""

from __future__ import annotations

import copy
import sys
from collections import deque
from functools import cache, lru_cache
from math import sqrt
from types import CellType, FunctionType, ModuleType, SimpleNamespace
from typing import Any, ClassVar

import mujoco
import numpy as np
from jaxtyping import Float
from metaworld.sawyer_xyz_env import SawyerXYZEnv
from metaworld.utils import reward_utils
from scipy.spatial.transform import Rotation


def accelerated(official: type[SawyerXYZEnv]) -> type[SawyerXYZEnv]:
    """A faster subclass of an official environment. It uses the same random numbers and returns the same bits."""
    own = {name: _rebound(value) for name, value in vars(official).items() if not name.startswith("__")}
    return type(official.__name__, (_Cached, official), own)


def _rebound(value: Any) -> Any:
    """A member of an official class, with `_REPLACEMENTS` in place of the library functions that its module imported.

    Functions, properties and static methods are copied with new globals. Any other value is returned unchanged.
    """
    if isinstance(value, property):
        return property(_rebound(value.fget))
    if isinstance(value, staticmethod):
        return staticmethod(_rebound(value.__func__))
    if not isinstance(value, FunctionType):
        return value
    # A decorator keeps the function that it wraps in its closure.
    closure = value.__closure__ and tuple(CellType(_rebound(cell.cell_contents)) for cell in value.__closure__)
    bound = FunctionType(value.__code__, _globals(value.__module__), value.__name__, value.__defaults__, closure)
    bound.__kwdefaults__ = value.__kwdefaults__
    return bound


@cache
def _globals(module: str) -> dict[str, Any]:
    names = vars(sys.modules[module])
    return {**names, **{name: new for name, new in _REPLACEMENTS.items() if name in names}}


def norm(x: Any, ord: Any = None) -> Any:
    """`numpy.linalg.norm` of a vector."""
    if type(x) is np.ndarray and x.dtype == np.float64 and x.strides == (8,) and ord in (None, 2):
        return np.float64(sqrt(x.dot(x)))
    return np.linalg.norm(x, ord)


def tolerance(
    x: Any,
    bounds: tuple[float, float] = (0.0, 0.0),
    margin: Any = 0.0,
    sigmoid: Any = "gaussian",
    value_at_margin: float = 0.1,
) -> Any:
    """`reward_utils.tolerance` of one number. Only the sigmoid that nearly all rewards use takes the fast path."""
    lower, upper = bounds
    if not (
        sigmoid == "long_tail" and value_at_margin == 0.1 and isinstance(x, float) and margin > 0 and lower <= upper
    ):
        return reward_utils.tolerance(x, bounds, margin, sigmoid, value_at_margin)
    if lower <= x <= upper:
        return 1.0
    d = np.float64(lower - x if x < lower else x - upper) / margin
    return float(1 / ((d * _LONG_TAIL_SCALE) ** 2 + 1))


_LONG_TAIL_SCALE = sqrt(1 / 0.1 - 1)


def hstack(parts: Any) -> Any:
    """`numpy.hstack`, faster for scalars."""
    return np.array(parts) if all(type(part) is np.float64 for part in parts) else np.hstack(parts)


class _Quaternion:
    """`Rotation.from_matrix` without the test for orthogonality: MuJoCo's matrices are orthogonal by construction."""

    def __init__(self, matrix: Float[np.ndarray, "3 3"]) -> None:
        self._matrix = matrix

    @classmethod
    def from_matrix(cls, matrix: Float[np.ndarray, "3 3"]) -> _Quaternion:
        return cls(matrix)

    def as_quat(self) -> Float[np.ndarray, "4"]:
        """(x, y, z, w), by the branch of Shepperd's method with the largest divisor."""
        (m00, m01, m02), (m10, m11, m12), (m20, m21, m22) = self._matrix.tolist()
        trace = m00 + m11 + m22
        largest = max(m00, m11, m22, trace)
        if m00 == largest:
            x, y, z, w = 1 - trace + 2 * m00, m10 + m01, m20 + m02, m21 - m12
        elif m11 == largest:
            x, y, z, w = m10 + m01, 1 - trace + 2 * m11, m21 + m12, m02 - m20
        elif m22 == largest:
            x, y, z, w = m20 + m02, m21 + m12, 1 - trace + 2 * m22, m10 - m01
        else:
            x, y, z, w = m21 - m12, m02 - m20, m10 - m01, 1 + trace
        length = sqrt(x * x + y * y + z * z + w * w)
        if not length > 0:  # NaN: leave it to scipy
            return Rotation.from_matrix(self._matrix).as_quat()
        return np.array((x / length, y / length, z / length, w / length))


def _with(module: ModuleType, **new: Any) -> SimpleNamespace:
    return SimpleNamespace(**{**vars(module), **new})


_REPLACEMENTS = {
    "np": _with(np, hstack=hstack, linalg=_with(np.linalg, norm=norm)),
    "Rotation": _Quaternion,
    "reward_utils": _with(reward_utils, tolerance=tolerance),
    "tolerance": tolerance,
}


@lru_cache(maxsize=32)  # 50 models of 21 MB would take a gigabyte per worker. Each of two workers needs half of them.
def _compiled(path: str) -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_path(path)


class _Model:
    """An environment's own copy of a compiled MuJoCo model. After it is restored, another environment can use it."""

    spare: ClassVar[deque[_Model]] = deque(maxlen=5)
    """Copies of closed environments, as many as a worker steps at a time (`toppo.training.envs.units.LANES`)."""

    def __init__(self, path: str) -> None:
        compiled = _compiled(path)
        self.path, self.model = path, copy.copy(compiled)
        arrays = {name: getattr(self.model, name) for name in dir(compiled)}
        # No environment writes to the longer arrays, which hold meshes, textures and bounding boxes: most of the 21 MB.
        self._arrays = [
            (array, getattr(compiled, name))
            for name, array in arrays.items()
            if isinstance(array, np.ndarray) and array.flags.writeable and array.nbytes <= 1 << 16
        ]

    @classmethod
    def take(cls, path: str) -> _Model:
        """A model in its compiled state. Compiling takes 0.1 s, a copy 0.01 s, and restoring a spare copy 0.001 s."""
        for model in cls.spare:
            if model.path == path:
                cls.spare.remove(model)
                for array, original in model._arrays:
                    array[...] = original
                return model
        return cls(path)


class _Cached(SawyerXYZEnv):
    """The official step from action to reward, on views of MuJoCo's memory that are looked up once.

    It leaves out work without an effect: moving sites that `mj_forward` moves back, forces that nothing reads
    (`mj_rnePostConstraint`), the size of a picture that is never drawn, and checks of arguments that the class itself
    passes.
    """

    def _initialize_simulation(self) -> tuple[mujoco.MjModel, mujoco.MjData]:
        self._own_model: _Model | None = _Model.take(self.fullpath)
        model = self._own_model.model
        data = mujoco.MjData(model)
        self._mocap_pos, self._mocap_quat, self._ctrl = data.mocap_pos[0], data.mocap_quat[0], data.ctrl
        self._fingers = data.site("rightEndEffector").xpos, data.site("leftEndEffector").xpos
        self._claws = data.body("rightclaw").xpos, data.body("leftclaw").xpos
        self._pads = model.geom("leftpad_geom").id, model.geom("rightpad_geom").id
        self._bodies = {model.body(i).name: data.body(i).xpos for i in range(model.nbody)}
        self._sites = {model.site(i).name: data.site(i).xpos for i in range(model.nsite)}
        return model, data

    def close(self) -> None:
        """Give the model to the next environment. This environment cannot be used afterwards."""
        super().close()  # type: ignore[no-untyped-call]
        if self._own_model is not None:
            _Model.spare.append(self._own_model)
            self._own_model = None

    def get_body_com(self, body_name: str) -> Any:
        return self._bodies[body_name]

    def get_endeff_pos(self) -> Any:
        return self._bodies["hand"]

    def _get_site_pos(self, site_name: str) -> Any:
        return self._sites[site_name].copy()

    @property
    def tcp_center(self) -> Any:
        right, left = self._fingers
        return (right + left) / 2.0

    def touching_object(self, object_geom_id: int) -> bool:
        data = self.data
        if data.ncon == 0:
            return False
        contact = data.contact
        pairs, addresses = contact.geom.tolist(), contact.efc_address
        forces = [0, 0]
        for i, pair in enumerate(pairs):
            if object_geom_id in pair:
                for side, pad in enumerate(self._pads):
                    if pad in pair:
                        forces[side] += data.efc_force[addresses[i]]
        return bool(forces[0] > 0 and forces[1] > 0)

    _gripper_caging_reward = _rebound(SawyerXYZEnv._gripper_caging_reward)

    def set_xyz_action(self, action: np.ndarray) -> None:
        target = self._mocap_pos + action.clip(-1, 1) * self.action_scale
        target.clip(self.mocap_low, self.mocap_high, out=self._mocap_pos)
        self._mocap_quat[:] = _DOWN

    def do_simulation(self, ctrl: Any, n_frames: int) -> None:
        self._ctrl[:] = ctrl
        mujoco.mj_step(self.model, self.data, nstep=n_frames)

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        # An official reset calls reset_model twice: on the data of the last episode and on fresh data. The place where
        # the hand settles the first time has no effect. So the first call here does not settle the hand.
        self.curr_path_length = 0
        self._settles = False
        self.reset_model()
        self._settles = True
        obs, info = super(SawyerXYZEnv, self).reset()
        self._prev_obs = obs[:18].copy()
        obs[18:36] = self._prev_obs
        return obs, info

    def _reset_hand(self, steps: int = 50) -> None:
        if self._settles:
            self._mocap_pos[:] = self.hand_init_pos
            self._mocap_quat[:] = _DOWN
            self.do_simulation((-1, 1), steps * self.frame_skip)
        self.init_tcp = self.tcp_center

    def _get_curr_obs_combined_no_goal(self) -> Float[np.ndarray, "18"]:
        right, left = self._claws
        apart = right - left
        obs = np.zeros(18)
        obs[:3] = self._bodies["hand"]
        obs[3] = min(max(sqrt(apart.dot(apart)) / 0.1, 0.0), 1.0)
        pos, quat = self._get_pos_objects(), self._get_quat_objects()
        for i in range(len(pos) // 3):
            start = 4 + 7 * i
            obs[start : start + 3] = pos[3 * i : 3 * i + 3]
            obs[start + 3 : start + 7] = quat[4 * i : 4 * i + 4]
        return obs

    def _get_obs(self) -> Float[np.ndarray, "39"]:
        obs = np.zeros(39)
        if not self._partially_observable:
            obs[36:] = self._get_pos_goal()
        obs[18:36] = self._prev_obs
        obs[:18] = self._prev_obs = self._get_curr_obs_combined_no_goal()
        return obs

    def step(self, action: np.ndarray) -> tuple[np.ndarray, Any, bool, bool, dict[str, Any]]:
        if self.curr_path_length >= self.max_path_length:
            raise ValueError("You must reset the env manually once truncate==True")
        self.set_xyz_action(action[:3])
        grip = action[-1]
        self.do_simulation((grip, -grip), self.frame_skip)
        self.curr_path_length += 1
        mujoco.mj_forward(self.model, self.data)
        space = self.sawyer_observation_space
        obs = self._get_obs()
        obs.clip(space.low, space.high, out=obs)
        reward, info = self.evaluate_state(obs, action)
        return obs, reward, False, self.curr_path_length == self.max_path_length, info


_DOWN = np.array([1.0, 0.0, 1.0, 0.0])
"""Orientation of the mocap body: the gripper points down."""
