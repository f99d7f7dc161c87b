"""What a program runs on: its devices and processes, its memory, its kept programs."""
