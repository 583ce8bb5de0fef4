"""Pure functions: arrays in, labelled tables out. Nothing here draws or touches a file."""
