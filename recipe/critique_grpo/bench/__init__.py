"""What the streaming rollout stage saves: the same requests through it and through a stage with barriers.

``workload.py``: the requests. ``simulation.py``: a simulated server, for sizes that no laptop serves. ``server.py``: a
real one. ``__main__.py``: the tables. Run it with ``bash scripts/bench_rollout.sh``.
"""
