"""verl's trainer with the shaped loss: hooks, no copies. Begin with ``ray_trainer.py``."""
