"""The critique-refinement rollout stage. Begin with ``group_stage.py``, which has the whole of it in one class."""
