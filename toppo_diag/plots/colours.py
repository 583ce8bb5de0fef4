"""The colours of the tasks, in figures and in the report. Nothing here needs matplotlib."""

TASK_COLOURS = (
    "#332288",
    "#88CCEE",
    "#117733",
    "#999933",
    "#DDCC77",
    "#CC6677",
    "#882255",
    "#AA4499",
    "#44AA99",
    "#661100",
)
"""Paul Tol's muted scheme. Its colours stay distinct under the common kinds of colour blindness."""
