"""Reading: from dumps, archives, runs and URLs to labelled arrays. All input is here."""
