"""What user code may do to its process, and how ours goes on all the same.

    restore   puts right what a module changed while it was imported: descriptors, signals, the
              limit of recursion
    prompts   makes `breakpoint()` and `input()` say that nobody can answer, instead of waiting or
              ending oddly
    forked    notices a process that user code forked off ours, and ends it where it comes back to
              us

The resolver and workers call `prompts.say_so` before they import user modules, and `Steady.restore`
after it.
"""
