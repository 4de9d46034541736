"""From a request to the call of a method: slots, order, threads, deadlines."""
