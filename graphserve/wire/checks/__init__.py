"""Closes what msgspec leaves open when it reads or writes a value: one gap a module, by a function
that is made once for a type and called for each value.

    arrays              holds arrays to their dtype and shape, and makes them read-only
    nan                 reads null as NaN where only a float can be, since JSON has no other word
    dataclass_defaults  fills in the defaults that a body did not give
    duplicates          finds arguments that a body gives twice
    results             tells whether a result is plainly of its annotation

`ValueCodec` asks the first three about one value, `ArgumentsCodec` asks `duplicates` about a whole
body, and `ResultCodec` asks `results` before it writes for callers that have no annotation.
"""
