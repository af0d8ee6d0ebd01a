"""Run folders in, files out. Reads what a run wrote and nothing else; imports no framework."""
