"""Meta-World behind one small interface (`toppo.envs.interface.Backend`)."""
