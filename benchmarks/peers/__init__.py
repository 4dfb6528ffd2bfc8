"""The same model behind other servers, each written as its documentation recommends.

`benchmarks.serving` starts each in a process, with the environment in `benchmarks.services`.
"""
