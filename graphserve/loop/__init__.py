"""Everything that we do to an event loop: timers, readers, tasks that begin at once, a loop in a thread."""
