"""The PyTorch side: reference twins, weight conversion both ways, and numerical parity."""
