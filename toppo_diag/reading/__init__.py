"""Reading dumps, archives, runs and URLs as labelled arrays. All input of the toolkit is in this package."""
