"""Meta-World behind one small interface, `toppo.training.envs.interface.Backend`.

`sizes` states the sizes of Meta-World without importing it. `metaworld` builds environments, and `workers` runs them in
processes. `envpool` is a second, faster simulator. `units` says what each worker plays, and `player` plays it.
"""
