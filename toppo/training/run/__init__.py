"""The run around the learner: collect, update, record, checkpoint, evaluate, in one directory."""
