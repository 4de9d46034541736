"""What the commands show: text, colours, tables, JSON.

    display    what a display of a running graph is, and which one `--log-format` and the terminal
               choose
    plain      the displays as text and as JSON, line by line
    terminal   the display that draws the nodes on a terminal while they start
    lines      records as lines: the words and colours of all displays
    writer     writes lines to a descriptor that may stall, in a thread: the supervisor never waits
    table      the tables of `ps` and `status`
    live       the picture of `top`; `screen` is the terminal that it is shown on
    timing     what `status --timing` shows
    say        what the commands print themselves

A worker's line comes as a record to `Display.log`, `lines` makes text of it, and a writer takes it
to the descriptor.
"""
