"""TaskForce: cooperative reinforcement-learning agents, one per task, weigh the tasks from the Gram.

`combiner` holds the method and its options. `observation`, `reward`, `noise` and `buffer` are its parts in numpy.
`agents` holds the networks. It is the only part that imports torch, and only when TaskForce is used.
"""

from toppo.combiners.taskforce.combiner import TaskForce
from toppo.combiners.taskforce.observation import project

__all__ = ["TaskForce", "project"]
