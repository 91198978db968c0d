"""This pod's cache directories: finding units, restoring them, and checking who else can write there."""
