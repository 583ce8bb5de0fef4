"""Meta-World behind one small interface, `toppo.training.envs.interface.Backend`.

`sizes` states the sizes of Meta-World without importing it. `metaworld` builds environments, `workers` runs them in
processes, `envpool` is a second, faster simulator. What each worker plays is in `units`, and how in `player`.
"""
