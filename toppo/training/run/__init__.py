"""The run around the learner, in one directory: rollouts, updates, records, checkpoints and evaluations.

`start` has the functions that users call. `trainer` is the loop. `directory` has the class `Run`, which reads what a
run leaves on disk.
"""
