"""Measurements, side by side: every figure stands beside the floor it is compared with, taken in the same run."""
