"""Baselines that collect a data set with the rollout stage, and fine-tune on it with verl's SFT trainer."""
