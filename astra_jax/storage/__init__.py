"""What is written: whole or not there, by one process at a time, and the same when it is read."""
