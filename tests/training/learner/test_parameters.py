"""The number of parameters that the toolkit counts from a configuration is that of the networks."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from toppo.training.config import resolve
from toppo.training.envs.sizes import ACTION_DIM, OBS_DIM
from toppo.training.learner.networks import NetworkShape, count_parameters
from toppo.training.learner.update import Learner
from toppo_diag.analysis.parameters import parameter_count


@pytest.mark.parametrize("layernorm", ["none", "critic", "both"])
@pytest.mark.parametrize("popart", ["off", "welford"])
def test_the_count_of_a_configuration_is_that_of_its_networks(layernorm: str, popart: str) -> None:
    config = resolve({"layernorm": layernorm, "popart": popart, "hidden": (7, 5), "workers": 1})
    shape = NetworkShape(10, OBS_DIM, ACTION_DIM, config.hidden)
    learner = Learner(config, shape, ("",) * 10, torch.device("cpu"))
    counted = count_parameters(learner.actor, learner.critic, learner.popart)
    assert parameter_count(dataclasses.asdict(config), 10) == counted


def test_the_papers_counts() -> None:
    """Table B.2: 684K and 716K for vanilla, 685K and 717K with LN-c and PopArt."""
    plain = {"layernorm": "none", "popart": "off", "hidden": (400, 400, 400)}
    headline = plain | {"layernorm": "critic", "popart": "welford"}
    counts = [round(parameter_count(config, k) / 1e3) for config in (plain, headline) for k in (10, 50)]
    assert counts == [684, 716, 685, 717]
