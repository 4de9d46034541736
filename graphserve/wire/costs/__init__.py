"""Bounds what decoding may cost: few bytes from outside must not make a process hold,
do or answer much.

    bounds           every bound, in one table
    screening        checks a public body before it is decoded: depth, lists and objects, sets and
                     keys
      outline        reads msgpack, or JSON without its texts, without making anything of it
      collisions     finds values that were chosen to have one hash, before a set or a dict is made
                     of them
      hash_spread    says whether a set or a dict of some values is quick
    union_branching  knows how often pydantic would try the members of a union that contains itself

`ArgumentsCodec.decode` asks `Screening.check` about each public body that is large enough to cost
anything.
"""
