"""The layout of the memory that a worker shares with its supervisor: 64-bit words. Pure; used in both processes."""

from __future__ import annotations

DEADLINE = 0  # the latest deadline of what is executed: nanoseconds of CLOCK_MONOTONIC; 0: no call with one is executed
EXECUTING = 1  # calls that are executed, never fewer than there are, and 0 if there is none
FIRST_NOTE, NOTE = 2, 2  # then notes of two words: API (counted from 1) << 40 | length of the body, or 0; its check
UPLOAD = (1 << 40) - 1  # as a length: the body is a stream, of which nothing is kept
WORDS = 512  # of one page
