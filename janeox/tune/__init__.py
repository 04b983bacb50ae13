"""Tuning for dialogue: SFT, reward model, PPO, DPO; all on the loop of `train/loop.py`."""
