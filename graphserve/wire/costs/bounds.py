"""Lists every bound on what a few bytes from outside can make a process hold, do or answer.

One table, which imports nothing. `screening` checks a public body by it before anything is made of
the body; `validation_errors`, `arrays` and the readers of a worker keep to their lines of it.
Bounds on time, and on how the bytes come, are in `worker.http.limits`.
"""

from __future__ import annotations

# What the values of a public body take in memory once they are decoded.
DECODED_FLOOR = 8 * 1024 * 1024  # bytes that they may always take, and
DECODED_TIMES = 100  # for each byte of the body: an empty object of a class takes more than that
DEPTH = 256  # lists and objects inside each other, where no type says how deep they may be

# Elements of sets and keys of dicts, with hashes that a client can choose.
HASHED_BODY = 2048  # bytes; a smaller body has too few of them to be slow
HASHED_FEW = 64  # entries that may all have one hash: comparing each with each is quick
COLLISIONS = 32  # different values of one hash beyond that; 64 bits alone give 17 of them
COUNTED_FROM = 512  # values; a table of fewer is quick, whichever they are
TABLE_FLOOR_NS = 500_000  # nanoseconds of CPU that a table may always take, and
# for each value; what people send takes 20 to 350. From there on steps are counted:
TABLE_VALUE_NS = 1_000
STEPS = 64  # for each value; of numbers that people send up to 35

# Arrays.
ARRAY_TIMES = 16  # bytes of an array for each byte of the lists that it is made of
ARRAY_FLOOR = 4 * 1024 * 1024  # bytes that may always be made
EMPTY_ROWS = 256  # rows without elements that the public may send: as JSON each has its brackets
EMPTY_ROWS_BETWEEN = 1024 * 1024  # the same between services
# of an array from the public, those inside its records included: older versions of numpy have no
# more
AXES = 32
AXES_OF_ONE = 8  # of these may have the length 1: as JSON each has brackets around every element
# So an array becomes JSON of at most 26 times its bytes: of one byte with these brackets; a float16
# without has 11.
# lists that an array may always become in a value of pydantic's; else as many as it has bytes
LISTS_FLOOR = 1024

# Unions of pydantic's that contain themselves: each tries all its members, so the work multiplies
# at each level.
TRIES_FLOOR = 20_000  # values tried that may always be, and
TRIES_TIMES = 4  # for each byte of the body

# What is said of a body that does not fit.
ERRORS_TOLD = 32
# of pydantic, which makes all of them or none, each in 5 to 50 µs; of more the number is told
ERRORS_MADE = 1_000
NAME_CHARACTERS = 128  # of a name that the client chose
MESSAGE_CHARACTERS = 512

# How bodies are collected and read.
LARGE_BODY = 256 * 1024  # bytes; from here on a public body is decoded in a thread
SMALL_CHUNK = 16 * 1024  # bytes; smaller chunks of a stream are joined

# Forms.
FORM_PARTS = 256  # each takes some 20 µs to read, however few bytes it has
# bytes; the files of a larger form are taken out of it as it comes, so that it costs its bytes once
LARGE_FORM = 16 * 1024 * 1024
BESIDE = 1024 * 1024  # bytes; a file from there on is beside the other arguments, and not copied
FORM_TEXT = 1024 * 1024  # bytes of parts that are no files; more is sent as JSON, which is screened

# Pictures, whose files may be much smaller than they are.
IMAGE_FLOOR = 16 * 1024 * 1024  # pixels that one may always have, and
IMAGE_TIMES = 256  # for each byte of its file; a photograph has 2 to 10, an empty page 1,000
IMAGE_MOST = 89_478_485  # from there on Pillow itself warns

# Tables, which may say very much in a few bytes: what their cells take as somebody uses them.
TABLE_FLOOR = 16 * 1024 * 1024  # bytes that one may always take, and
TABLE_TIMES = 100  # for each byte that came
TABLE_CELL = 8  # bytes of a number,
TABLE_TEXT = 64  # of a text, its characters apart, or of another value that is an object in Python,
TABLE_NESTED = 128  # of a list or a struct, what is in it apart
TABLE_COLUMNS = 4096
TABLE_DEPTH = 8  # lists and structs inside each other
# cells of a table of JSON's records for each value in them: what is missing is null
TABLE_SPARSE = 16
