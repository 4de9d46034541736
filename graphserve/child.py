"""The first file of every child process, run by its path:
`python -P …/graphserve/child.py resolve|supervise|worker …`.

With -P, and with our own folder last on `sys.path`, nothing in the user's folder can stand in for a
module of ours, and graphserve need not be installed in the interpreter that runs it.
"""

import gc
import os
import sys

if __name__ == "__main__":
    gc.disable()  # until `system.child_process.begin_collecting`
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if root not in sys.path:
        sys.path.append(root)
    from graphserve.system.inherited import open_standard_streams, reset_signals

    open_standard_streams()
    reset_signals()
    if sys.argv[1] == "supervise":
        from graphserve.cli.library import main
    else:  # here user code will run, and may hang
        from graphserve.system.stack import show_on_signal

        show_on_signal()
        if sys.argv[1] == "resolve":
            from graphserve.graph.builder import main
        else:
            from graphserve.worker.main import main
    main()
