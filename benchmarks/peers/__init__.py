"""What a user would assemble instead: the same model behind other servers, each as its own documentation does it.

Each is started by `benchmarks.serving` as a process, with the environment that `benchmarks.services` names.
"""
