"""A study that a laptop holds: does Critique-GRPO learn what GRPO cannot?"""
